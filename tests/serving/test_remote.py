"""What a request meets when a replica dies of it, or before it."""

import asyncio

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from onestep.serving.remote import answered
from onestep.serving.schema import Refusal

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
