import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from onestep.serving.gathering import Gathering

LONG_S = 60.0


class Calls:
    """Calls that end when they are told to, by their number."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.cancelled: list[list[str]] = []

    async def __call__(self, requests: Sequence[str]) -> list[str]:
        self.asked.append(list(requests))
        self.gates.append(asyncio.get_running_loop().create_future())
        try:
            await self.gates[-1]
        except asyncio.CancelledError:
            self.cancelled.append(list(requests))
            raise
        return [request.upper() for request in requests]


def gathering(found: Calls, **settings: float) -> Gathering[str, str]:
    return Gathering(found, **({"most": 4, "linger_s": LONG_S} | settings))  # type: ignore[arg-type]


def run(work: Callable[[Calls], Awaitable[None]]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(10.0):
            await work(Calls())

    asyncio.run(timed())


async def settle() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


async def begin(
    way: Gathering[str, str], text: str, kind: str | None = "kind", size: int = 1
) -> "list[asyncio.Task[str]]":
    """A request for each letter."""
    tasks = [asyncio.create_task(way.ask(one, kind=kind, size=size)) for one in text]
    await settle()
    return tasks


def test_who_is_alone_goes_at_once_and_who_comes_meanwhile_goes_together() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "a")
        tasks += await begin(way, "bc")
        assert calls.asked == [["a"]]
        calls.gates[0].set_result(None)
        await settle()
        assert calls.asked == [["a"], ["b", "c"]]
        calls.gates[1].set_result(None)
        assert await asyncio.gather(*tasks) == ["A", "B", "C"]

    run(work)


def test_a_full_call_waits_for_none_and_leaves_the_rest() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "abcdefg")
        assert calls.asked == [["a"], ["b", "c", "d", "e"]]
        tasks += await begin(way, "h", size=3)  # with f and g it would be too large
        assert calls.asked[2:] == [["f", "g"]]
        for gate in calls.gates:
            gate.set_result(None)
        await settle()
        assert calls.asked[3:] == [["h"]]
        calls.gates[3].set_result(None)
        assert await asyncio.gather(*tasks) == [*"ABCDEFGH"]

    run(work)


def test_company_is_waited_for_no_longer_than_is_bounded() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls, linger_s=0.05), "abc")
        assert calls.asked == [["a"]]
        while len(calls.asked) < 2:
            await asyncio.sleep(0.01)
        assert calls.asked == [["a"], ["b", "c"]]
        calls.gates[1].set_result(None)
        assert await asyncio.gather(*tasks[1:]) == ["B", "C"]
        tasks += await begin(way, "d")
        assert len(calls.asked) == 2  # the first is under way
        tasks[0].cancel()
        await settle()
        assert calls.asked[2:] == [["d"]]

    run(work)


def test_as_many_calls_as_there_are_replicas_go_at_once() -> None:
    async def work(calls: Calls) -> None:
        await begin(gathering(calls, calls=2), "abcd")
        assert calls.asked == [["a"], ["b"]]
        calls.gates[1].set_result(None)
        await settle()
        assert calls.asked[2:] == [["c", "d"]]

    run(work)


def test_kinds_do_not_wait_for_each_other_and_what_has_none_for_nobody() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "a")
        tasks += await begin(way, "b", kind="other")
        tasks += await begin(way, "cd", kind=None)
        tasks += await begin(way, "e", size=5)
        assert calls.asked == [["a"], ["b"], ["c"], ["d"], ["e"]]
        for gate in calls.gates:
            gate.set_result(None)
        assert await asyncio.gather(*tasks) == [*"ABCDE"]
        assert not way._kinds

    run(work)


def test_who_leaves_is_not_asked_for_and_a_call_ends_that_all_have_left() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "abcd")
        tasks[1].cancel()
        await settle()
        calls.gates[0].set_result(None)
        await settle()
        assert calls.asked == [["a"], ["c", "d"]]
        tasks[2].cancel()
        await settle()
        assert not calls.cancelled  # d waits for it
        tasks[3].cancel()
        await settle()
        assert calls.cancelled == [["c", "d"]]
        assert not way._kinds

    run(work)


def test_an_error_of_a_call_is_that_of_all_in_it() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(gathering(calls), "abc")
        calls.gates[0].set_result(None)
        await settle()
        calls.gates[1].set_exception(OSError("gone"))
        assert await tasks[0] == "A"
        for task in tasks[1:]:
            with pytest.raises(OSError, match="gone"):
                await task

    run(work)


def test_a_call_that_ends_from_within_leaves_nobody_waiting() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(gathering(calls), "a")
        calls.gates[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    run(work)
