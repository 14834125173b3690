"""What a request meets when a replica dies of it, or before it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from onestep.serving.errors import RequestRefused
from onestep.serving.remote import READY_WITHIN_S, RemoteService, answered
from onestep.serving.schema import ImagesRequest, Refusal

_DEATHS = (RayActorError(), ActorUnavailableError("gone", None))


@pytest.mark.parametrize("death", _DEATHS)
def test_another_replica_answers_for_one_that_died(death: RayActorError) -> None:
    async def dies() -> str:
        raise death

    async def answers() -> str:
        return "images"

    assert asyncio.run(answered(dies, answers)) == "images"


def test_a_request_that_all_replicas_die_of_is_refused() -> None:
    async def dies() -> str:
        raise RayActorError

    refused = asyncio.run(answered(dies, dies))
    assert isinstance(refused, Refusal)
    assert refused.status == 503


class Response:
    """What a handle returns, which goes on until it is cancelled, whoever waits for it or not."""

    def __init__(self, handle: "Handle", work: Coroutine[Any, Any, Any]) -> None:
        self._handle = handle
        self._work = asyncio.create_task(work)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self._work).__await__()

    def cancel(self) -> None:
        self._handle.cancelled += 1
        self._work.cancel()


class Handle:
    """A handle whose replicas answer when they are let, and die of the prompt ``poison``."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.calls: list[list[str]] = []
        self.cancelled = 0

    def options(self, *, stream: bool) -> "Handle":
        assert stream
        return self

    @property
    def generate(self) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda request: Response(self, self._one(request)))

    @property
    def describe(self) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda: Response(self, self.opened.wait()))

    def broadcast(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(results_async=self.opened.wait)

    @property
    def make(self) -> SimpleNamespace:
        return self.generate

    @property
    def generate_all(self) -> SimpleNamespace:
        return SimpleNamespace(remote=self._several)

    async def _one(self, request: ImagesRequest) -> str:
        await self._answer([request])
        return f"images of {request.prompt}"

    async def _several(
        self, requests: Sequence[ImagesRequest]
    ) -> AsyncIterator[list[tuple[int, str]]]:
        await self._answer(requests)
        for place, request in enumerate(requests):
            yield [(place, f"images of {request.prompt}")]

    async def _answer(self, requests: Sequence[ImagesRequest]) -> None:
        prompts = [request.prompt for request in requests]
        self.calls.append(prompts)
        await self.opened.wait()
        if "poison" in prompts:
            raise RayActorError


def service_of(handle: Handle, *, most: int = 99) -> RemoteService:
    names = ["digits", "faces"]
    service = RemoteService(handle, names, most=most, together=4, linger_s=60.0)  # type: ignore[arg-type]
    service._generated._call_s = 600.0
    return service


async def settle() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


def test_a_crowd_is_told_once_no_model_takes_another() -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle, most=2)
        told = [service.crowd]
        asked = []
        for model in ("digits", "digits/3", "faces", ""):  # the last means the first
            request = ImagesRequest(model=model, prompt="1")
            asked.append(asyncio.create_task(service.generate(request)))
            await settle()
            told.append(service.crowd)
        assert told == [0, 0, 0, 0, 0]  # whom a version is of nobody knows here
        asked.append(
            asyncio.create_task(service.generate(ImagesRequest(model="faces", prompt="1")))
        )
        await settle()
        assert service.crowd == 2
        asked[0].cancel()
        await settle()
        assert service.crowd == 0
        handle.opened.set()
        await asyncio.gather(*asked[1:])

    asyncio.run(work())


def test_what_the_replicas_would_refuse_is_refused_before_the_way_to_them() -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle, most=2)
        one, other = (ImagesRequest(model=name, prompt="1") for name in ("digits", "faces"))
        asked = [asyncio.create_task(service.generate(one)) for _ in range(2)]
        asked.append(asyncio.create_task(service.generate(other)))
        await settle()
        refused = await service.generate(one)
        assert isinstance(refused, Refusal)
        assert refused.status == 429
        asked[0].cancel()  # a client that leaves makes room
        await settle()
        asked.append(asyncio.create_task(service.generate(one)))
        await settle()
        asked.append(asyncio.create_task(service.generate(one.begun())))  # whatever else waits
        await settle()
        handle.opened.set()
        assert await asyncio.gather(*asked[1:]) == ["images of 1"] * 4

    asyncio.run(work())


@pytest.mark.parametrize("body", [{}, {"deadline_ms": 900}], ids=["gathered", "alone"])
def test_a_lone_request_whose_client_left_is_dropped(body: dict[str, int]) -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle)
        asked = asyncio.create_task(service.generate(ImagesRequest(prompt="1", **body)))
        await settle()
        asked.cancel()
        await settle()
        assert (handle.calls, handle.cancelled) == ([["1"]], 1)

    asyncio.run(work())


def test_replicas_that_say_nothing_of_themselves_are_waited_for_no_longer_than_is_bounded() -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle)
        async with asyncio.timeout(2 * READY_WITHIN_S):
            refused, missing, tally = await asyncio.gather(
                service.describe(), service.missing(), service.tally(), return_exceptions=True
            )
        assert isinstance(refused, RequestRefused)
        assert refused.status == 503
        assert (missing, tally) == (["digits", "faces"], None)
        assert handle.cancelled == 1

    asyncio.run(work())


def test_requests_that_take_as_long_travel_together_and_others_alone() -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle)
        bodies: list[dict[str, Any]] = [
            *({"prompt": text} for text in "abc"),
            {"prompt": "d", "steps": 4},
            {"prompt": "e", "model": "faces"},
            {"prompt": "f", "deadline_ms": 900},
            {"prompt": "g", "quality": "high"},
            {"prompt": "h", "n": 5},
            {"prompt": "i", "response_format": "url"},
        ]
        asked = [asyncio.create_task(service.generate(ImagesRequest(**body))) for body in bodies]
        await settle()
        assert sorted(handle.calls) == [["a"], *([text] for text in "defghi")]
        handle.opened.set()
        await asyncio.gather(*asked)
        assert handle.calls[7:] == [["b", "c"]]

    asyncio.run(work())


def test_one_that_a_replica_dies_of_is_asked_for_again_without_its_company() -> None:
    async def work() -> None:
        handle = Handle()
        service = service_of(handle)
        prompts = ("a", "b", "poison", "c")
        asked = [
            asyncio.create_task(service.generate(ImagesRequest(prompt=prompt)))
            for prompt in prompts
        ]
        await settle()
        handle.opened.set()
        *others, refused = await asyncio.gather(*asked[:2], asked[3], asked[2])
        assert others == [f"images of {prompt}" for prompt in "abc"]
        assert isinstance(refused, Refusal)
        assert handle.calls == [["a"], ["b", "poison", "c"], ["b"], ["poison"], ["c"]]

    asyncio.run(work())
