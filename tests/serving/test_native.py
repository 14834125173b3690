import asyncio
import base64
import io
from typing import Any, Final

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.guidance_scale import AtScale
from onestep.methods.core.noise import draw_noise
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.tests.serving.model import (
    MEAN,
    SHAPE,
    STD,
    UNET_NODE,
    gaussian,
    record_of,
    unet,
)

GENERATE: Final = "/v1/generate"


def network(*, guided: bool = False) -> Engine:
    flow_map = AtScale(unet(guided=True), scale=2.0) if guided else unet()
    return Engine(flow_map, record_of(net=UNET_NODE), bucket=4, strict=True)


def posted(
    *bodies: Any, engine: Engine | None = None, path: str = GENERATE
) -> list[httpx.Response]:
    service = EngineService(engine or network(), name="champion", version="digits/3")

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_api(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.post(path, json=body) for body in bodies]

    return asyncio.run(run())


def array(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-npy"
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def npy(values: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, values)
    return base64.b64encode(file.getvalue()).decode()


def noise(seed: int, n: int) -> np.ndarray:
    return draw_noise(n, SHAPE, seed=seed)[0].numpy()


def test_the_array_has_the_bits_of_the_engine() -> None:
    body = {"labels": "two", "n": 5, "seed": 7, "format": "npy"}
    (answer,) = posted(body)
    engine = network()
    (expected,) = engine.sample([engine.accept("two", n=5, seed=7)])
    found = array(answer)
    assert (found.dtype, found.shape) == (np.float32, (5, *SHAPE))
    assert (found == expected.numpy()).all()
    assert answer.headers["X-Onestep-Model"] == "digits/3"
    assert answer.headers["X-Onestep-Seed"] == "7"
    assert answer.headers["X-Onestep-Steps"] == "1"
    assert "X-Onestep-Guidance" not in answer.headers


def test_numbers_are_classes_and_texts_are_names_first() -> None:
    names = ("one", "zero", "3", "0")
    engine = Engine(unet(), record_of(net=UNET_NODE, label_names=names), bucket=4, strict=True)
    body = {"seeds": [5] * 4, "format": "npy"}
    numbers, texts = posted(
        {**body, "labels": [0, 1, 2, 3]}, {**body, "labels": ["0", "1", "2", "3"]}, engine=engine
    )
    assert (array(texts) == array(numbers)[[3, 1, 2, 2]]).all()
    expected = [engine.sample([engine.accept(name, seed=5)])[0] for name in names]
    assert (array(numbers) == torch.cat(expected).numpy()).all()


def test_images_of_labels_and_seeds_are_those_that_each_gives_alone() -> None:
    together, *alone = posted(
        {"labels": [3, "one", "0"], "seeds": [5, 5, 9], "steps": 2, "format": "npy"},
        *(
            {"labels": label, "seed": seed, "steps": 2, "format": "npy"}
            for label, seed in ((3, 5), (1, 5), (0, 9))
        ),
    )
    assert (array(together) == np.concatenate([array(one) for one in alone])).all()
    assert together.headers["X-Onestep-Seeds"] == "5,5,9"
    first, second = array(together)[:2]
    assert (first != second).any(), "labels matter"


def test_the_noise_of_a_seed_gives_what_the_seed_gives() -> None:
    by_noise, by_seed = posted(
        {"labels": 1, "noise": npy(noise(4, 3)), "format": "npy"},
        {"labels": 1, "n": 3, "seed": 4, "format": "npy"},
    )
    assert (array(by_noise) == array(by_seed)).all()
    assert "X-Onestep-Seed" not in by_noise.headers


def test_the_oracle_maps_noise_that_is_given_to_its_own_law() -> None:
    given = np.linspace(-2, 2, 2 * 64, dtype=np.float32).reshape(2, *SHAPE)
    (answer,) = posted(
        {"labels": 1, "noise": npy(given), "format": "npy"}, engine=Engine(gaussian(), record_of())
    )
    np.testing.assert_allclose(array(answer), MEAN + STD * given, atol=1e-5)


def test_a_sampler_that_draws_again_takes_the_noise_of_each_draw() -> None:
    def engine() -> Engine:
        domain = Domain(kind=DomainKind.TO_DATA)
        return Engine(gaussian(domain=domain), record_of(domain=domain), bucket=4, strict=True)

    draws = engine().draws(3)
    assert draws == 3
    given = draw_noise(2, SHAPE, seed=4, draws=draws).numpy()
    by_noise, by_seed, wrong = posted(
        {"labels": 1, "noise": npy(given), "steps": 3, "format": "npy"},
        {"labels": 1, "n": 2, "seed": 4, "steps": 3, "format": "npy"},
        {"labels": 1, "noise": npy(given[0]), "steps": 3, "format": "npy"},
        engine=engine(),
    )
    assert (array(by_noise) == array(by_seed)).all()
    assert wrong.status_code == 422
    assert "in the shape (3, n, 1, 8, 8), got shape (2, 1, 8, 8)" in wrong.text


def test_safetensors_holds_the_same_images_and_how_they_were_made() -> None:
    body = {"labels": [1, 2], "seeds": [3, 4]}
    exact, file = posted({**body, "format": "npy"}, {**body, "format": "safetensors"})
    assert file.headers["Content-Type"] == "application/x-safetensors"
    assert (safetensors.torch.load(file.content)["images"].numpy() == array(exact)).all()
    length = int.from_bytes(file.content[:8], "little")
    assert b'"seeds":"3,4"' in file.content[8 : 8 + length]


def levels(answer: httpx.Response) -> np.ndarray:
    assert answer.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image)


def test_a_png_is_the_one_image_and_a_grid_has_all_of_them_in_rows() -> None:
    body = {"labels": 1, "seeds": [3, 4, 5]}
    grid, *alone = posted(
        {**body, "format": "grid"}, *({"labels": 1, "seed": seed} for seed in body["seeds"])
    )
    pictures = [levels(one) for one in alone]
    sheet = levels(grid)
    assert sheet.shape == (16, 16)
    assert (sheet[:8] == np.hstack(pictures[:2])).all()
    assert (sheet[8:, :8] == pictures[2]).all()
    assert (sheet[8:, 8:] == 0).all()


def test_a_webp_holds_the_levels_of_the_png() -> None:
    png, webp = posted(*({"labels": 1, "seed": 3, "format": form} for form in ("png", "webp")))
    assert webp.headers["Content-Type"] == "image/webp"
    with Image.open(io.BytesIO(webp.content)) as image:
        assert image.format == "WEBP"
        found = np.asarray(image)
    assert (found == levels(png)[:, :, None]).all()


def test_the_images_of_a_seed_are_numbered_and_may_begin_anywhere() -> None:
    whole, end = posted(
        {"labels": 1, "n": 5, "seed": 4, "format": "npy"},
        {"labels": 1, "n": 2, "seed": 4, "start": 3, "format": "npy"},
    )
    assert (array(end) == array(whole)[3:]).all()
    assert (end.headers["X-Onestep-Seed"], end.headers["X-Onestep-Start"]) == ("4", "3")
    assert "X-Onestep-Start" not in whole.headers


def test_guidance_reaches_the_network_and_the_headers() -> None:
    body = {"labels": 1, "seed": 1, "format": "npy"}
    own, strong = posted(body, {**body, "guidance": 4}, engine=network(guided=True))
    assert own.headers["X-Onestep-Guidance"] == "2"
    assert strong.headers["X-Onestep-Guidance"] == "4"
    assert (array(own) != array(strong)).any()


def test_a_drawn_seed_comes_back() -> None:
    (first,) = posted({"labels": 1, "format": "npy"})
    (again,) = posted({"labels": 1, "format": "npy", "seed": int(first.headers["X-Onestep-Seed"])})
    assert (array(first) == array(again)).all()


LIE: Final = npy(np.zeros((1, *SHAPE), np.float32))
HUGE: Final = base64.b64encode(
    base64.b64decode(LIE).replace(b"(1, 1, 8, 8)", b"(9999999, 64)")[:256]
).decode()


def npy_of(header: str) -> str:
    """The start of an npy file with this header, in base64."""
    size = len(header).to_bytes(2, "little")
    return base64.b64encode(b"\x93NUMPY\x01\x00" + size + header.encode()).decode()


@pytest.mark.parametrize(
    ("status", "param", "body", "message"),
    [
        (422, "seeds", {"labels": 1, "seed": 1, "seeds": [1]}, "got seed and seeds"),
        (422, "noise", {"labels": 1, "seed": 1, "noise": "x"}, "got seed and noise"),
        (422, "n", {"labels": 1, "seeds": [1, 2], "n": 3}, "n must be that of the seeds, 2, got 3"),
        (422, "seeds", {"labels": 1, "seeds": []}, "seeds must have at least 1 item"),
        (
            422,
            "seeds",
            {"labels": 1, "seeds": [1] * 65},
            "n must be in 1..64 without stream, got 65",
        ),
        (422, "seeds", {"labels": 1, "seeds": [1] * 4097}, "seeds must have at most 4096 items"),
        (422, "start", {"labels": 1, "seeds": [1], "start": 2}, "start must be left out beside"),
        (422, "format", {"n": 2, "labels": 1, "format": "webp"}, "format webp is for one image"),
        (422, "format", {"labels": [1, 2]}, "format png is for one image, got n = 2; allowed"),
        (422, "labels", {"labels": [1, 2], "n": 3, "format": "npy"}, "one for each, got 2 for 3"),
        (422, "labels", {"labels": True}, "labels must be the number or the name of a class, got"),
        (422, "labels", {"labels": [1, -1]}, "labels must be the number or the name of a class"),
        (422, "labels", {"labels": "four"}, "labels must be a class label, got 'four'"),
        (422, "labels", {}, "labels must be a class label, got none"),
        (422, "labels", {"labels": [], "format": "npy"}, "labels must have at least 1 item"),
        (422, "steps", {"labels": 1, "steps": 65}, "steps must be less than or equal to 64"),
        (422, "guidance", {"labels": 1, "guidance": 3}, "guidance must be left out"),
        (422, "format", {"labels": 1, "format": "gif"}, "'grid', got 'gif'"),
        (422, "prompt", {"prompt": "1"}, "unknown field 'prompt'; allowed: model, steps"),
        (404, "model", {"labels": 1, "model": "best"}, "got 'best'; allowed: champion, digits/3"),
        (422, "noise", {"labels": 1, "noise": "?"}, "got no such file"),
        (422, "noise", {"labels": 1, "noise": "AAAA"}, "got no such file"),
        *(
            (422, "noise", {"labels": 1, "noise": npy_of(header)}, "got no such file")
            for header in (
                "{'shape': (1,",
                "{'shape': (1}",
                "{" * 3000,
                "[x for x in y]",
                "\0",
                "{1}",
            )
        ),
        (422, "noise", {"labels": 1, "noise": npy(np.zeros((1, 8, 8), "f4"))}, "got shape"),
        (422, "noise", {"labels": 1, "noise": npy(np.full((1, 1, 8, 8), 1e38, "f4"))}, "got 64"),
        (422, "noise", {"labels": 1, "noise": npy(np.zeros((1, *SHAPE)))}, "got float64"),
        (422, "noise", {"labels": 1, "noise": npy(np.full((1, *SHAPE), np.nan, "f4"))}, "got 64"),
        (422, "noise", {"labels": 1, "noise": npy(np.zeros((0, *SHAPE), "f4"))}, "got 0"),
        (422, "noise", {"labels": 1, "noise": npy(np.zeros((65, *SHAPE), "f4"))}, "got 65"),
        (422, "noise", {"labels": 1, "noise": HUGE}, "bytes for shape (9999999, 64)"),
        (422, None, [1], "the body must be a JSON object with the header"),
    ],
)
def test_a_bad_request_is_refused_in_the_shape_of_the_other_endpoint(
    status: int, param: str | None, body: object, message: str
) -> None:
    (answer,) = posted(body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_an_array_of_objects_is_not_unpacked() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (answer,) = posted({"labels": 1, "noise": base64.b64encode(file.getvalue()).decode()})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "noise")


def test_a_model_without_classes_takes_no_labels() -> None:
    engine = Engine(gaussian(classes=0), record_of(classes=0, label_names=()), bucket=4)
    plain, refused = posted(
        {"n": 2, "seed": 3, "format": "npy"}, {"labels": 1, "seed": 3}, engine=engine
    )
    expected = MEAN + STD * torch.from_numpy(noise(3, 2))
    np.testing.assert_allclose(array(plain), expected.numpy(), atol=1e-5)
    assert "labels must be empty for a model without classes" in refused.text


def test_the_unknown_field_of_the_other_endpoint_is_told_its_own_fields() -> None:
    (answer,) = posted({"labels": 1}, path="/v1/images/generations")
    assert "unknown field 'labels'; allowed: model, steps" in answer.text
