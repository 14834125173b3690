import asyncio
import base64
import io
from typing import Final

import httpx
import numpy as np
import pytest
from PIL import Image

from onestep.methods.core.guidance_scale import AtScale
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.tests.serving.model import NAMES, UNET_NODE, record_of, unet

GENERATIONS: Final = "/v1/images/generations"
PLACE: Final = "/v1/images/digits/3/7/0.png"


def asked(
    *requests: tuple[str, str, object],
    headers: dict | None = None,
    names: tuple[str, ...] = NAMES,
) -> list[httpx.Response]:
    flow_map = AtScale(unet(guided=True), scale=2.0)
    record = record_of(net=UNET_NODE, label_names=names)
    engine = Engine(flow_map, record, bucket=4, strict=True)
    service = EngineService(engine, name="champion", version="digits/3")

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_api(service), root_path="/images")
        async with httpx.AsyncClient(
            transport=transport, base_url="http://where.it.is:81", headers=headers
        ) as client:
            return [await client.request(verb, url, json=body) for verb, url, body in requests]

    return asyncio.run(run())


def linked(**body: object) -> list[str]:
    (answer,) = asked(("POST", GENERATIONS, {"response_format": "url", **body}))
    assert answer.status_code == 200, answer.text
    assert all(data["b64_json"] is None for data in answer.json()["data"])
    return [data["url"] for data in answer.json()["data"]]


def levels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("form", ["png", "webp"])
def test_an_address_leads_to_the_image_that_the_request_gives(form: str) -> None:
    body = {
        "prompt": "two",
        "n": 3,
        "seed": 7,
        "steps": 2,
        "guidance": 3.5,
        "output_format": form,
    }
    urls = linked(**body)
    root = "http://where.it.is:81/images/v1/images/digits/3/7"
    assert urls[2] == f"{root}/2.{form}?labels=2&steps=2&guidance=3.5"
    paths = [url.replace("/images/v1", "/v1") for url in urls]
    posted, *found = asked(("POST", GENERATIONS, body), *(("GET", path, None) for path in paths))
    expected = [base64.b64decode(data["b64_json"]) for data in posted.json()["data"]]
    assert [answer.content for answer in found] == expected
    assert {answer.headers["Content-Type"] for answer in found} == {f"image/{form}"}
    assert len({levels(answer.content).tobytes() for answer in found}) == 3


def test_an_address_leads_to_its_class_though_another_is_named_by_its_number() -> None:
    names = ("one", "zero", "3", "0")
    body = {"prompt": "one", "seed": 7}
    (answer,) = asked(("POST", GENERATIONS, {**body, "response_format": "url"}), names=names)
    url = answer.json()["data"][0]["url"].replace("/images/v1", "/v1")
    assert "labels=0&" in url
    posted, found, by_name = asked(
        ("POST", GENERATIONS, body),
        ("GET", url, None),
        ("GET", url.replace("labels=0", "labels=one"), None),
        names=names,
    )
    assert found.content == base64.b64decode(posted.json()["data"][0]["b64_json"])
    assert found.content == by_name.content


def test_an_address_names_the_drawn_seed_and_costs_nothing_yet() -> None:
    (answer,) = asked(("POST", GENERATIONS, {"prompt": "1", "response_format": "url"}))
    body = answer.json()
    assert f"/digits/3/{body['seed']}/0.png?labels=1&steps=1" in body["data"][0]["url"]
    assert body["usage"] == {"images": 1, "network_evaluations": 0}


def test_caches_may_keep_an_image_and_ask_whether_it_is_the_same() -> None:
    first, other = asked(("GET", f"{PLACE}?labels=1", None), ("GET", f"{PLACE}?labels=2", None))
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert tag.startswith('"')
    assert tag != other.headers["ETag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        (same,) = asked(("GET", f"{PLACE}?labels=1", None), headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    (changed,) = asked(("GET", f"{PLACE}?labels=2", None), headers={"If-None-Match": tag})
    assert changed.content == other.content


def test_what_was_made_for_a_key_is_kept_by_its_owner_alone() -> None:
    (answer,) = asked(("GET", f"{PLACE}?labels=1", None), headers={"Authorization": "Bearer k"})
    assert answer.headers["Cache-Control"].startswith("private, ")
    assert answer.headers["Vary"] == "Authorization"


@pytest.mark.parametrize(
    ("status", "url", "message"),
    [
        (404, "/v1/images/digits/4/7/0.png?labels=1", "got 'digits/4'; allowed: champion"),
        (422, f"{PLACE}?labels=9", "labels must be a class label, got 9"),
        (422, f"{PLACE}?labels=1&steps=65", "steps must be less than or equal to 64"),
        (422, f"{PLACE}?labels=1&quality=hd", "'quality'; allowed: labels, steps, guidance"),
        (422, "/v1/images/digits/3/7/0.gif?labels=1", "form must be 'png' or 'webp'"),
        (422, "/v1/images/digits/3/-7/0.png?labels=1", "seed must be greater than or equal to 0"),
        (422, f"/v1/images/digits/3/7/{2**53}.png?labels=1", "k must be less than or equal to"),
        (422, "/v1/images/digits/champion/7/0.png?labels=1", "version must be a valid integer"),
        (422, f"/v1/images/{'a' * 250}/1/7/0.png", "name must have at most 100 characters"),
        (422, f"/v1/images/digits/{'9' * 250}/7/0.png", "version must be"),
    ],
)
def test_an_address_of_nothing_says_what_is_wrong_and_is_not_kept(
    status: int, url: str, message: str
) -> None:
    (answer,) = asked(("GET", url, None))
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert "Cache-Control" not in answer.headers


def test_a_body_that_nobody_asked_for_is_not_taken_for_a_client_that_left() -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
    service = EngineService(engine, name="champion", version="digits/3")

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(build_api(service, AppSettings(max_body_mb=1)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request("GET", f"{PLACE}?labels=1", content=b"x" * 1_000_001)

    assert asyncio.run(run()).status_code == 413
