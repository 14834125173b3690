import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar

import pytest

from onestep.serving.gathering import Gathering

LONG_S = 60.0


class Calls:
    """Calls that go on when they are told to, each by its number; several are answered in waves."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gates: list[asyncio.Future[str]] = []
        self.cancelled: list[str] = []

    async def one(self, request: str) -> str:
        await self._gate(request)
        return request.upper()

    async def several(self, requests: Sequence[str]) -> AsyncIterator[list[tuple[int, str]]]:
        together = "".join(requests)
        left = together
        while left:
            wave = await self._gate(together if left == together else f"{together} left {left}")
            left = "".join(letter for letter in left if letter not in wave)
            yield [(together.index(letter), letter.upper()) for letter in wave]

    async def _gate(self, asked: str) -> str:
        self.asked.append(asked)
        self.gates.append(asyncio.get_running_loop().create_future())
        try:
            return await self.gates[-1]
        except asyncio.CancelledError:
            self.cancelled.append(asked)
            raise


def gathering(calls: Calls, *, most: int = 4, linger_s: float = LONG_S) -> Gathering[str, str]:
    found = Gathering(calls.one, calls.several, most=most, linger_s=linger_s)
    found._call_s = LONG_S / 0.1
    return found


def run(work: Callable[[Calls], Awaitable[None]]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(10.0):
            await work(Calls())

    asyncio.run(timed())


async def settle() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


async def begin(
    way: Gathering[str, str], text: str, kind: str = "kind", size: int = 1
) -> "list[asyncio.Task[str]]":
    """A request for each letter."""
    tasks = [asyncio.create_task(way.ask(one, kind=kind, size=size)) for one in text]
    await settle()
    return tasks


def test_who_is_alone_goes_at_once_and_who_comes_meanwhile_goes_together() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "a")
        tasks += await begin(way, "bc")
        assert calls.asked == ["a"]
        calls.gates[0].set_result("a")
        await settle()
        assert calls.asked == ["a", "bc"]
        calls.gates[1].set_result("bc")
        assert await asyncio.gather(*tasks) == ["A", "B", "C"]
        await settle()
        assert not way._kinds

    run(work)


def test_each_has_its_answer_as_soon_as_it_is_there() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(gathering(calls), "abcd")
        calls.gates[0].set_result("a")
        await settle()
        calls.gates[1].set_result("c")
        await settle()
        assert [task.done() for task in tasks] == [True, False, True, False]
        calls.gates[2].set_result("bd")
        assert await asyncio.gather(*tasks) == [*"ABCD"]
        assert calls.asked == ["a", "bcd", "bcd left bd"]

    run(work)


def test_a_full_call_waits_for_none_and_leaves_the_rest() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "abcdefg")
        assert calls.asked == ["a", "bcde"]
        tasks += await begin(way, "h", size=3)  # with f and g it would be too large
        assert calls.asked[2:] == ["fg"]
        tasks += await begin(way, "i", size=5)  # more than any call holds
        assert calls.asked[3:] == ["i"]
        for gate, asked in zip(calls.gates, calls.asked, strict=True):
            gate.set_result(asked)
        await settle()
        assert calls.asked[4:] == ["h"]
        calls.gates[4].set_result("h")
        assert await asyncio.gather(*tasks) == [*"ABCDEFGHI"]

    run(work)


def test_company_is_waited_for_no_longer_than_is_bounded() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(gathering(calls, linger_s=0.05), "abc")
        assert calls.asked == ["a"]
        while len(calls.asked) < 2:
            await asyncio.sleep(0.01)
        assert calls.asked == ["a", "bc"]
        calls.gates[1].set_result("bc")
        assert await asyncio.gather(*tasks[1:]) == ["B", "C"]

    run(work)


def test_company_is_hardly_waited_for_where_calls_are_short() -> None:
    async def work(calls: Calls) -> None:
        way = gathering(calls)
        way._call_s = 0.05
        await begin(way, "abc")
        await asyncio.sleep(0.02)
        assert calls.asked == ["a", "bc"]

    run(work)


def test_kinds_do_not_wait_for_each_other() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "a")
        tasks += await begin(way, "b", kind="other")
        assert calls.asked == ["a", "b"]
        for gate in calls.gates:
            gate.set_result("")
        assert await asyncio.gather(*tasks) == [*"AB"]

    run(work)


def test_who_leaves_is_not_asked_for_and_a_call_ends_that_all_have_left() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(way := gathering(calls), "abcd")
        tasks[1].cancel()
        await settle()
        tasks += await begin(way, "ef")
        assert calls.asked == ["a", "cdef"]  # who has left takes no room
        calls.gates[1].set_result("f")
        await settle()
        tasks[2].cancel()
        tasks[3].cancel()
        await settle()
        assert not calls.cancelled  # e waits for it
        tasks[4].cancel()
        await settle()
        assert calls.cancelled == ["cdef left cde"]
        calls.gates[0].set_result("a")
        assert [await tasks[0], await tasks[5]] == ["A", "F"]
        await settle()
        assert not way._kinds

    run(work)


def test_a_call_belongs_to_no_request_of_those_in_it() -> None:
    asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")
    seen = []

    async def several(requests: Sequence[str]) -> AsyncIterator[list[tuple[int, str]]]:
        seen.append(asked_by.get())
        yield [(place, request) for place, request in enumerate(requests)]

    async def work(calls: Calls) -> None:
        way = Gathering(calls.one, several, most=4, linger_s=LONG_S)
        way._call_s = LONG_S
        asked_by.set("ada")
        tasks = await begin(way, "abcdefg")  # one alone, four full, two when the first is answered
        calls.gates[0].set_result("a")
        await asyncio.gather(*tasks)
        assert seen == ["nobody", "nobody"]

    run(work)


def test_an_error_of_a_call_is_that_of_all_whom_it_has_not_answered() -> None:
    async def work(calls: Calls) -> None:
        tasks = await begin(gathering(calls), "abcd")
        calls.gates[0].set_result("a")
        await settle()
        calls.gates[1].set_result("c")
        await settle()
        calls.gates[2].set_exception(OSError("gone"))
        assert [await tasks[0], await tasks[2]] == ["A", "C"]
        for task in (tasks[1], tasks[3]):
            with pytest.raises(OSError, match="gone"):
                await task

    run(work)


def test_a_call_that_ends_too_early_leaves_nobody_waiting() -> None:
    async def several(requests: Sequence[str]) -> AsyncIterator[list[tuple[int, str]]]:
        yield [(0, requests[0].upper())]

    async def work(calls: Calls) -> None:
        way = Gathering(calls.one, several, most=2, linger_s=LONG_S)
        tasks = await begin(way, "abc")
        assert await tasks[1] == "B"
        with pytest.raises(RuntimeError, match="must answer all"):
            await tasks[2]
        calls.gates[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    run(work)
