"""Requests that are alike travel to a replica together while it is at work."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar, final

LINGER_S: Final = 0.01
"""Most seconds that a request waits for company."""
_SHARE: Final = 0.1
"""Of the time that calls take, what may be waited for company."""
_NEWS: Final = 0.2
"""Weight of the last call in that time."""
AskedT = TypeVar("AskedT")
FoundT = TypeVar("FoundT")
Wave = Sequence[tuple[int, FoundT]]
"""Answers that are there at the same time, with the places of their requests."""


@final
class Gathering(Generic[AskedT, FoundT]):
    """Makes one call of requests of a kind that come while a call of that kind is under way.

    A call costs far more than a request within it, here and where it is answered, and there the
    forwards pay for it. Who is alone goes at once. Others wait until the call is full, none is
    under way any more, or for a bounded time. Each has its answer as soon as it is there.

    Args:
        one: Answers a request that goes alone.
        several: Answers several, in waves.
        most: Most of a call, by the requests' sizes.
        linger_s: Most seconds that a request waits for others, and no more than a tenth of what
            calls take.
    """

    def __init__(
        self,
        one: Callable[[AskedT], Awaitable[FoundT]],
        several: Callable[[Sequence[AskedT]], AsyncIterator[Wave[FoundT]]],
        *,
        most: int,
        linger_s: float = LINGER_S,
    ) -> None:
        self._one = one
        self._several = several
        self._most = most
        self._linger_s = linger_s
        self._call_s = 0.0
        self._kinds: dict[Hashable, _Kind[AskedT, FoundT]] = {}

    async def ask(self, asked: AskedT, *, kind: Hashable, size: int) -> FoundT:
        """The answer to one request; a call that nobody waits for any more is cancelled.

        Args:
            asked: The request.
            kind: Requests of one kind take as long as each other.
            size: How much of a call it fills.

        Returns:
            What was found for it.

        Raises:
            Exception: Whatever the call raises, to all that it has not answered.
        """
        if size >= self._most:
            return await self._one(asked)
        own = self._kinds.setdefault(kind, _Kind())
        if own.size + size > self._most:
            self._send(kind)
        waiting: _Waiting[AskedT, FoundT] = _Waiting(asked, size)
        own.held.append(waiting)
        if not own.under_way or own.size >= self._most:
            self._send(kind)
        elif own.timer is None:
            loop, wait_s = asyncio.get_running_loop(), min(self._linger_s, _SHARE * self._call_s)
            own.timer = loop.call_later(wait_s, self._send, kind)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            own.leave(waiting)
            raise

    def _send(self, kind: Hashable) -> None:
        own = self._kinds[kind]
        going = own.take()
        if going:
            # In no request's context: Serve cancels what was called in that of one who leaves.
            task = asyncio.create_task(self._answer(going), context=Context())
            own.under_way[task] = going
            task.add_done_callback(lambda task: self._ended(kind, task), context=Context())
        elif not own.under_way:
            del self._kinds[kind]

    async def _answer(self, going: "Sequence[_Waiting[AskedT, FoundT]]") -> None:
        began = time.monotonic()
        try:
            if len(going) == 1:
                going[0].give(await self._one(going[0].asked))
            else:
                async for wave in self._several([waiting.asked for waiting in going]):
                    for place, found in wave:
                        going[place].give(found)
        except asyncio.CancelledError:
            for waiting in going:
                waiting.future.cancel()
            raise
        except Exception as error:  # raised again where each is awaited
            for waiting in going:
                waiting.fail(error)
        else:
            for waiting in going:
                waiting.fail(RuntimeError("a call must answer all its requests"))
            taken_s = time.monotonic() - began
            self._call_s += _NEWS * (taken_s - self._call_s)

    def _ended(self, kind: Hashable, task: "asyncio.Task[None]") -> None:
        own = self._kinds[kind]
        del own.under_way[task]
        if not own.under_way:
            self._send(kind)


@final
class _Waiting(Generic[AskedT, FoundT]):
    """A request, how much of a call it fills, and its answer."""

    def __init__(self, asked: AskedT, size: int) -> None:
        self.asked = asked
        self.size = size
        self.future: asyncio.Future[FoundT] = asyncio.get_running_loop().create_future()

    def give(self, found: FoundT) -> None:
        """Answer it, if somebody still waits."""
        if not self.future.done():
            self.future.set_result(found)

    def fail(self, error: Exception) -> None:
        """Say why it has no answer, if it has none and somebody still waits."""
        if not self.future.done():
            self.future.set_exception(error)


@final
class _Kind(Generic[AskedT, FoundT]):
    """Requests of one kind: those that wait for company, and who waits for each call."""

    def __init__(self) -> None:
        self.held: list[_Waiting[AskedT, FoundT]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.under_way: dict[asyncio.Task[None], Sequence[_Waiting[AskedT, FoundT]]] = {}

    @property
    def size(self) -> int:
        """How much of a call those fill that wait for company."""
        return sum(waiting.size for waiting in self.held)

    def take(self) -> "list[_Waiting[AskedT, FoundT]]":
        """Those that wait for company, who wait for it no more."""
        if self.timer is not None:
            self.timer.cancel()
        going, self.held, self.timer = self.held, [], None
        return going

    def leave(self, waiting: "_Waiting[AskedT, FoundT]") -> None:
        """One wants no answer any more; a call of which nobody does is cancelled."""
        if waiting in self.held:
            self.held.remove(waiting)
        for task, going in self.under_way.items():
            if waiting in going and all(one.future.done() for one in going):
                task.cancel()
