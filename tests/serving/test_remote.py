"""What a request meets when a replica dies of it, or before it."""

import asyncio

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from onestep.serving.remote import RemoteService, answered
from onestep.serving.schema import ImagesRequest, Refusal

_DEATHS = (RayActorError(), ActorUnavailableError("gone", None))


@pytest.mark.parametrize("death", _DEATHS)
def test_another_replica_answers_for_one_that_died(death: RayActorError) -> None:
    deaths = [death]

    async def call() -> str:
        if deaths:
            raise deaths.pop()
        return "images"

    assert asyncio.run(answered(call)) == "images"


def test_a_request_that_two_replicas_die_of_meets_no_third() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        raise RayActorError

    refused = asyncio.run(answered(call))
    assert isinstance(refused, Refusal)
    assert (refused.error.code, calls) == (503, 2)


class Gate:
    """A handle whose replicas answer when they are let."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.calls = 0

    @property
    def generate(self) -> "Gate":
        return self

    async def remote(self, request: ImagesRequest) -> str:
        del request
        self.calls += 1
        await self.opened.wait()
        return "images"


def test_what_the_replicas_would_refuse_is_refused_before_the_way_to_them() -> None:
    async def work() -> None:
        gate = Gate()
        service = RemoteService(gate, ["digits", "faces"], most=2)  # type: ignore[arg-type]
        one, other = ImagesRequest(model="digits"), ImagesRequest(model="faces")
        asked = [asyncio.create_task(service.generate(one)) for _ in range(2)]
        asked.append(asyncio.create_task(service.generate(other)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = await service.generate(one)
        assert isinstance(refused, Refusal)
        assert refused.error.code == 429
        assert gate.calls == 3
        asked[0].cancel()  # a client that leaves makes room
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(service.generate(one)))
        await asyncio.sleep(0)
        gate.opened.set()
        assert await asyncio.gather(*asked[1:]) == ["images"] * 3

    asyncio.run(work())
