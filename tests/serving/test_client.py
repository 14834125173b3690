import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onestep.methods.core.noise import draw_noise
from onestep.serving.client import Client, ServiceError
from onestep.serving.engine import Engine
from onestep.serving.image import to_uint8
from onestep.serving.service import EngineService
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import MEAN, SHAPE, STD, UNET_NODE, gaussian, record_of, unet

HEAD: Final = 128
ROW: Final = 4 * int(np.prod(SHAPE))


def network() -> Engine:
    return Engine(unet(), record_of(net=UNET_NODE), bucket=4, strict=True)


def oracle() -> EngineService:
    engine = Engine(gaussian(), record_of(), bucket=64, strict=True)
    return EngineService(engine, name="champion", version="digits/3")


class Faulty:
    """A way to the service that fails a few times before it does what it should.

    Args:
        app: The service.
        refusals: Statuses that the first requests get, with one second to wait.
        cut_after: Bytes of each answer after which the next connections break.
    """

    def __init__(
        self, app: ASGIApp, *, refusals: list[int] | None = None, cut_after: list[int] | None = None
    ) -> None:
        self.app = app
        self.refusals = refusals or []
        self.cuts = cut_after or []
        self.requests: list[dict] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(dict(scope["headers"]))
        if self.refusals:
            headers = [(b"retry-after", b"1"), (b"content-length", b"4")]
            status = self.refusals.pop(0)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"busy"})
            return
        left = self.cuts.pop(0) if self.cuts else 2**60

        async def counted(message: Message) -> None:
            nonlocal left
            body = message.get("body", b"")
            await send({**message, "body": body[:left]} if "body" in message else message)
            left -= len(body)
            if left <= 0:
                await asyncio.sleep(0.05)  # what was sent is on its way
                raise ConnectionError("the way is broken")

        await self.app(scope, receive, counted)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    service = EngineService(network(), name="digits@champion", version="digits/3")
    with listening(service) as url:
        yield url


def test_the_models_tell_what_may_be_asked_for(url: str) -> None:
    with Client(url) as client:
        assert client.ready()
        (model,) = client.models()
    assert (model.id, model.version, model.classes) == ("digits@champion", "digits/3", 4)
    assert (model.shape, model.labels[2]) == ([1, 8, 8], "two")


def test_images_are_pictures_that_say_how_to_make_them_again(url: str) -> None:
    with Client(url) as client:
        drawn = client.images("two", n=2, model="digits@champion")
        info = drawn[1].info
        again = client.images(2, n=2, seed=info["seed"], model=info["model"], steps=info["steps"])
    (images,) = network().sample([network().accept("2", n=2, seed=info["seed"])])
    expected = to_uint8(images).squeeze(-1).numpy()
    assert (info["model"], info["k"], info["steps"]) == ("digits/3", 1, 1)
    for found in (drawn, again):
        assert (np.stack([np.asarray(image) for image in found]) == expected).all()


def test_arrays_have_the_bits_of_the_engine(url: str) -> None:
    seeds = np.array([5, 6, 5])
    noise = np.concatenate([draw_noise(1, SHAPE, seed=int(seed))[0].numpy() for seed in seeds])
    (alone,) = network().sample([network().accept("three", n=1, seed=5, steps=2)])
    with Client(url) as client:
        by_seeds = client.generate(["three", 1, 2], seeds=seeds, steps=2)
        by_noise = client.generate(np.array([3, 1, 2]), noise=noise, steps=2)
        by_seed = client.generate("three", seed=5, n=2, steps=2)
        second = client.generate(3, seed=5, start=1, steps=2)
    assert (by_seeds.images.dtype, by_seeds.images.shape) == (np.float32, (3, *SHAPE))
    assert (by_seeds.images[:1] == alone.numpy()).all()
    assert (by_seeds.images == by_noise.images).all()
    assert (by_seed.images[:1] == alone.numpy()).all()
    assert (by_seed.images[1:] == second.images).all()
    assert (by_seed.model, by_seed.steps, by_seed.guidance) == ("digits/3", 2, None)
    assert [made.seed for made in (by_seeds, by_noise, by_seed)] == [None, None, 5]
    assert (second.seed, second.start) == (5, 1)


def test_a_refusal_says_what_is_wrong_and_is_not_repeated() -> None:
    ways: list[Faulty] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        ways.append(Faulty(app))
        return ways[0]

    with listening(oracle(), wrap) as url, Client(url) as client:
        for ask, status, param in (
            (lambda: client.generate(9), 422, "labels"),
            (lambda: client.images("1", model="best"), 404, "model"),
            (lambda: next(client.stream(1, n=4097)), 422, "n"),
        ):
            with pytest.raises(ServiceError) as refused:
                ask()
            assert (refused.value.status, refused.value.param) == (status, param)
            assert refused.value.message == str(refused.value)
        assert len(ways[0].requests) == 3


def test_a_service_that_is_not_there_is_told_after_the_retries() -> None:
    with Client("http://127.0.0.1:9", retries=1) as client:
        assert not client.ready()
        began = time.monotonic()
        with pytest.raises(ServiceError, match="/v1/models does not answer") as error:
            client.models()
    assert error.value.status is None
    assert time.monotonic() - began >= 0.25


def test_a_busy_service_is_asked_again_when_it_says_with_the_key_and_not_for_ever() -> None:
    ways: list[Faulty] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        ways.append(Faulty(app, refusals=[503, 429, 503, 429]))
        return ways[0]

    with listening(oracle(), wrap) as url, Client(url, key="secret", retries=1) as client:
        with pytest.raises(ServiceError, match="the service answered 429: busy") as refused:
            client.models()
        assert refused.value.status == 429
        assert len(ways[0].requests) == 2
        ways[0].refusals.pop()
        began = time.monotonic()
        assert client.generate(1, seed=2).images.shape == (1, *SHAPE)
        assert time.monotonic() - began >= 1.0
        assert ways[0].requests[-1][b"authorization"] == b"Bearer secret"


def test_a_stream_comes_in_parts_and_is_the_whole() -> None:
    with listening(oracle()) as url, Client(url) as client:
        parts = list(client.stream([k % 4 for k in range(200)], seed=5))
        small = client.generate(2, n=64, seed=5, start=64)
    assert [(part.start, len(part.images)) for part in parts] == [
        (0, 64),
        (64, 64),
        (128, 64),
        (192, 8),
    ]
    assert (parts[1].images == small.images).all()
    whole = np.concatenate([part.images for part in parts])
    expected = MEAN + STD * draw_noise(200, SHAPE, seed=5)[0].numpy()
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("own", [{"n": 300, "start": 7}, {"seeds": True}])
def test_a_stream_that_breaks_is_taken_up_where_it_broke(own: dict) -> None:
    body = {"seeds": [3 * k for k in range(300)]} if "seeds" in own else own
    cuts = [HEAD + 100 * ROW, HEAD + 64 * ROW, 50, HEAD + 130 * ROW]
    with (
        listening(oracle(), lambda app: Faulty(app, cut_after=cuts)) as url,
        Client(url) as client,
    ):
        parts = list(client.stream(1, **body))
        assert not cuts
        seed = parts[0].seed
        whole = list(client.stream(1, **(body if "seeds" in own else {**body, "seed": seed})))
    found, expected = (np.concatenate([part.images for part in each]) for each in (parts, whole))
    assert found.shape == (300, *SHAPE)
    assert (found == expected).all()
    assert {part.seed for part in parts} == {None if "seeds" in own else seed}
    if "seeds" not in own:
        starts = np.cumsum([own.get("start", 0), *(len(part.images) for part in parts)])
        assert [part.start for part in parts] == list(starts[:-1])


def test_a_program_that_imports_the_client_imports_no_torch() -> None:
    code = "import sys, onestep.serving.client; print({'torch', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"retries": -1}, {"longest_wait_s": -1}])
def test_a_client_of_no_time_or_fewer_than_no_retries_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be above 0, retries and longest_wait_s at least 0"):
        Client(**wrong)


@pytest.mark.parametrize("told_s", [0.0, 1.0, 45.0, 60.0])
@pytest.mark.parametrize("failures", [0, 3, 12])
def test_no_request_is_sent_again_before_the_service_says_so(
    told_s: float, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    busy = ServiceError("busy", status=429, is_passing=True, retry_after_s=told_s)
    with Client(retries=20) as client:
        client._wait(busy, failures)
    assert told_s <= slept[0] <= 1.5 * max(told_s, 30.0)
    assert slept[0] >= min(0.25 * 2**failures, 30.0)


def test_a_wait_that_is_longer_than_allowed_is_told_at_once() -> None:
    busy = ServiceError("busy", status=429, is_passing=True, retry_after_s=61.0)
    began = time.monotonic()
    with Client() as client, pytest.raises(ServiceError, match="busy") as error:
        client._wait(busy, 0)
    assert time.monotonic() - began < 10
    assert error.value.retry_after_s == 61.0


@pytest.mark.parametrize("wrong", [{"labels": 2.7}, {"labels": [1, 2.5]}, {"seeds": [0.1]}])
def test_a_fraction_is_no_label_and_no_seed(wrong: dict) -> None:
    with Client() as client, pytest.raises(ValueError, match="must be whole numbers or names"):
        client.generate(**wrong)


def test_a_stream_that_ends_early_is_asked_for_again_and_not_for_ever() -> None:
    asked: list[str] = []

    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    said = "the stream ended before its last image"
    with (
        listening(oracle(), lambda _: empty) as url,
        Client(url, retries=1) as client,
        pytest.raises(ServiceError, match=said),
    ):
        list(client.stream(1, n=100, seed=0))
    assert len(asked) == 2
