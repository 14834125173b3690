import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Final, TypeVar, cast

import httpx
import numpy as np
import pytest

from onestep.methods.oracle import GaussianMap
from onestep.serving.api import build_api
from onestep.serving.desk import Desk
from onestep.serving.engine import MAX_IMAGES, Engine
from onestep.serving.errors import Overloaded, RequestRefused
from onestep.serving.native import GenerateRequest, Made, accept
from onestep.serving.refusal import refusal
from onestep.serving.schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from onestep.serving.service import EngineService, Service
from onestep.serving.settings import AppSettings
from onestep.serving.shelf import Shelf
from onestep.serving.stream import IN_FLIGHT, StreamBroken, Streamed, stream
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import SHAPE, STD, TRIANGLE, UNET_NODE, record_of, unet

GENERATE: Final = "/v1/generate"
LONG: Final = {"labels": 1, "n": 6 * MAX_IMAGES, "seed": 3, "format": "npy", "stream": True}
DEFAULTS: Final = AppSettings()
T = TypeVar("T")


def load(version: str) -> EngineService:
    mean = 0.1 * int(version.removeprefix("digits/"))
    oracle = GaussianMap(mean=mean, std=STD, shape=SHAPE, classes=4, domain=TRIANGLE)
    engine = Engine(oracle, record_of(), bucket=MAX_IMAGES, strict=True)
    return EngineService(engine, name=version, version=version)


def network() -> EngineService:
    """One for which labels matter."""
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=16, strict=True)
    return EngineService(engine, name="champion", version="digits/1")


class Watched:
    """A service that notes which parts are asked for, and refuses those that a test names."""

    def __init__(self, service: Service, refused: dict[int, RequestRefused] | None = None) -> None:
        self.service = service
        self.refused = refused or {}
        self.asked: list[int] = []
        self.begun: list[bool] = []
        self.under_way = self.most = 0
        self.pause_s = 0.01  # before each part but the first

    async def describe(self) -> ModelList:
        return await self.service.describe()

    async def missing(self) -> list[str]:
        return await self.service.missing()

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        return await self.service.generate(request)

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        self.asked.append(request.start)
        self.begun.append(request.is_begun)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.pause_s if request.start else 0.01)
            if request.start in self.refused:
                return refusal(self.refused[request.start])
            return await self.service.make(request)
        finally:
            self.under_way -= 1
            if self.asked.count(request.start) == 2:
                self.refused.pop(request.start, None)


def posted(*bodies: object, over: Service | None = None) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_api(over or load("digits/1")))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.post(GENERATE, json=body) for body in bodies]

    return asyncio.run(run())


async def begun(service: Service, **changes: object) -> Streamed:
    request = GenerateRequest.model_validate({**LONG, **changes})
    answer = await stream(service, request, lambda stages: None)
    assert isinstance(answer, Streamed)
    return answer


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "own",
    [
        {"labels": 1, "n": 150, "seed": 3},
        {"labels": 1, "n": 150, "seed": 3, "start": 5},
        {"labels": [k % 3 for k in range(150)], "seeds": [7 * k for k in range(150)]},
        {"labels": 2, "n": MAX_IMAGES, "seed": 3},
        {"labels": 2, "n": 1, "seed": 3, "steps": 2},
    ],
    ids=["seed", "start", "seeds", "one part", "one image"],
)
def test_a_stream_is_the_file_that_small_requests_fill(own: dict) -> None:
    n = own["n"] if "n" in own else len(own["labels"])
    parts = []
    for begin in range(0, n, 50):
        part = {**own, "n": min(50, n - begin), "format": "npy"}
        if "seed" in own:
            part["start"] = own.get("start", 0) + begin
        for name in ("labels", "seeds"):
            if isinstance(own.get(name), list):
                part[name] = own[name][begin : begin + 50]
        parts.append(part)
    over = network() if "seeds" in own else None
    whole, *small = posted({**own, "format": "npy", "stream": True}, *parts, over=over)
    assert [answer.status_code for answer in (whole, *small)] == [200] * (1 + len(parts))
    arrays = [np.load(io.BytesIO(answer.content)) for answer in small]
    assert whole.content == saved(np.concatenate(arrays))
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    assert (whole.headers["X-Onestep-N"], whole.headers["X-Onestep-Model"]) == (str(n), "digits/1")
    assert "X-Onestep-Seeds" not in whole.headers, "thousands do not fit"


def test_a_drawn_seed_is_that_of_all_parts() -> None:
    drawn = {name: value for name, value in LONG.items() if name != "seed"}
    (first,) = posted(drawn)
    (again,) = posted({**LONG, "seed": int(first.headers["X-Onestep-Seed"])})
    assert first.content == again.content


@pytest.mark.parametrize("memory_bytes", [1, 10**9])
def test_a_stream_ends_with_the_version_that_it_began_with(memory_bytes: int) -> None:
    async def run() -> None:
        desk = Desk(Shelf(load, memory_bytes=memory_bytes))
        await desk.serve({"champion": ["digits/1"]})
        expected = b"".join([part async for part in (await begun(desk)).content])
        answer = await begun(desk)
        parts = [await anext(answer.content)]
        await desk.stage("digits/2")
        desk.point("champion", "digits/2")
        found = await desk.make(GenerateRequest(labels=1))
        assert isinstance(found, Made)
        assert found.headers["X-Onestep-Model"] == "digits/2"
        parts += [part async for part in answer.content]
        assert b"".join(parts) == expected

    asyncio.run(run())


def test_a_replica_that_has_loaded_a_version_but_not_swapped_yet_answers_for_it() -> None:
    async def run() -> None:
        desk = Desk(Shelf(load, memory_bytes=10**9))
        await desk.serve({"champion": ["digits/1"]})
        await desk.stage("digits/2")
        found = await desk.make(GenerateRequest(labels=1, model="digits/2"))
        assert isinstance(found, Made)
        assert found.headers["X-Onestep-Model"] == "digits/2"

    asyncio.run(run())


def test_no_more_parts_are_made_than_a_slow_client_takes() -> None:
    async def run() -> None:
        watched = Watched(load("digits/1"))
        answer = await begun(watched)
        await anext(answer.content)
        await asyncio.sleep(0.3)
        assert watched.asked == [0, *(MAX_IMAGES * k for k in range(1, 1 + IN_FLIGHT))]
        rest = [part async for part in answer.content]
        assert len(rest) == 5
        assert watched.most == IN_FLIGHT

    asyncio.run(run())


def test_a_stream_that_is_left_drops_the_parts_under_way() -> None:
    async def run() -> None:
        watched = Watched(load("digits/1"))
        answer = await begun(watched)
        async with aclosing(cast(AsyncGenerator[bytes], answer.content)) as content:
            await anext(content)
            await asyncio.sleep(0)
            assert watched.under_way == IN_FLIGHT
        await asyncio.sleep(0)
        assert watched.under_way == 0

    asyncio.run(run())


def test_a_part_that_is_refused_for_a_moment_is_asked_for_again() -> None:
    busy = {64: Overloaded(3), 128: RequestRefused("no model is ready", status=503)}

    async def run() -> None:
        expected = b"".join([part async for part in (await begun(load("digits/1"))).content])
        watched = Watched(load("digits/1"), busy)
        parts = [part async for part in (await begun(watched)).content]
        assert b"".join(parts) == expected
        assert sorted(watched.asked) == sorted([0, 64, 64, 64, 128, 128, 128, 192, 256, 320])
        assert watched.begun == [start > 0 for start in watched.asked]

    asyncio.run(run())


def with_socket(
    service: Service,
    work: Callable[[httpx.AsyncClient], Awaitable[T]],
    settings: AppSettings = DEFAULTS,
) -> T:
    async def run(url: str) -> T:
        async with httpx.AsyncClient(base_url=url) as client:
            return await work(client)

    with listening(service, settings=settings) as url:
        return asyncio.run(run(url))


def test_a_failure_in_the_middle_is_seen_as_an_answer_that_is_cut_off() -> None:
    watched = Watched(load("digits/1"), {192: RequestRefused("the labels have changed")})

    came: list[bytes] = []

    async def take(answer: httpx.Response) -> None:
        async for chunk in answer.aiter_raw():
            came.append(chunk)

    async def work(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", GENERATE, json=LONG) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
                await take(answer)

    with_socket(watched, work)
    assert len(b"".join(came)) == 128 + 3 * MAX_IMAGES * 4 * int(np.prod(SHAPE))
    assert watched.under_way == 0


def test_the_reason_of_a_failure_is_told_to_the_log() -> None:
    async def run() -> None:
        watched = Watched(load("digits/1"), {64: RequestRefused("the labels have changed")})
        with pytest.raises(StreamBroken, match="refused: the labels have changed"):
            [part async for part in (await begun(watched)).content]

    asyncio.run(run())


def test_a_client_that_leaves_ends_the_work() -> None:
    watched = Watched(load("digits/1"))

    async def work(client: httpx.AsyncClient) -> int:
        async with client.stream("POST", GENERATE, json={**LONG, "n": 4096}) as answer:
            await anext(answer.aiter_raw())
        await asyncio.sleep(0.3)
        asked = len(watched.asked)
        await asyncio.sleep(0.5)
        assert len(watched.asked) == asked
        return asked

    assert with_socket(watched, work) < 4096 // MAX_IMAGES


def test_streams_that_are_sent_at_once_are_bounded_until_one_ends_or_is_left() -> None:
    watched = Watched(load("digits/1"))
    watched.pause_s = 60.0

    async def work(client: httpx.AsyncClient) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                answer = client.stream("POST", GENERATE, json=LONG)
                await stack.enter_async_context(answer)
            refused = await client.post(GENERATE, json=LONG)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            error = refused.json()["error"]
            assert error["message"] == "2 streams are sent already; try again in a second"
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert (await client.post(GENERATE, json={"labels": 1})).status_code == 200
        watched.pause_s = 0.01
        async with asyncio.timeout(10):  # in which the server hears that both have left
            while (await client.post(GENERATE, json=LONG)).status_code == 429:
                await asyncio.sleep(0.01)
        for _ in range(3):  # a stream that is refused or ends keeps no place
            invalid = await client.post(GENERATE, json={**LONG, "labels": "nine"})
            assert invalid.status_code == 422
            assert (await client.post(GENERATE, json=LONG)).status_code == 200

    with_socket(watched, work, AppSettings(max_streams=2, access_log=False))


def test_the_bytes_of_a_stream_are_bounded() -> None:
    shape = (3, 256, 256)
    oracle = GaussianMap(mean=0.0, std=STD, shape=shape, classes=4, domain=TRIANGLE)
    engine = Engine(oracle, record_of(shape=shape))
    most = 2**29 // (4 * 3 * 256 * 256)
    request = GenerateRequest.model_validate({**LONG, "n": most})
    assert accept(engine, request).n == most == 682
    with pytest.raises(RequestRefused, match=r"n must be in 1\.\.682 for images of 256x256 in a"):
        accept(engine, request.model_copy(update={"n": most + 1}))


@pytest.mark.parametrize(
    ("param", "change", "message"),
    [
        ("n", {"n": 4097}, "n must be less than or equal to 4096, got 4097"),
        ("n", {"n": 65, "stream": False}, "n must be in 1..64 without stream, got 65"),
        ("format", {"format": "grid"}, "format must be npy for a stream, got grid"),
        ("noise", {"seed": None, "noise": "AAAA"}, "noise must be left out of a stream"),
        ("labels", {"labels": [*[1] * 383, "nine"]}, "labels must be a class label, got 'nine'"),
        ("steps", {"steps": 65}, "steps must be less than or equal to 64"),
    ],
)
def test_a_stream_that_cannot_end_is_refused_before_it_begins(
    param: str, change: dict, message: str
) -> None:
    (answer,) = posted({**LONG, **change})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
