"""Requests that are alike travel to the replicas together while these are at work."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar, final

LINGER_S: Final = 0.01
"""Most seconds that a request waits for company; a forward that is worth it takes longer."""
AskedT = TypeVar("AskedT")
FoundT = TypeVar("FoundT")


@final
class Gathering(Generic[AskedT, FoundT]):
    """Makes one call of requests of a kind that come while calls of that kind are under way.

    A call costs far more than a request within it, here and where it is answered, and there the
    forwards pay for it. Who is alone goes at once. Others wait until the call is full, none is
    under way any more, or for a bounded time.

    Args:
        call: Answers requests in their order.
        most: Most of a call, by the requests' sizes.
        calls: Calls of a kind under way that none waits for: those that find a replica idle.
        linger_s: Most seconds that a request waits for others.
    """

    def __init__(
        self,
        call: Callable[[Sequence[AskedT]], Awaitable[Sequence[FoundT]]],
        *,
        most: int,
        calls: int = 1,
        linger_s: float = LINGER_S,
    ) -> None:
        self._call = call
        self._most = most
        self._calls = calls
        self._linger_s = linger_s
        self._kinds: dict[Hashable, _Kind[AskedT, FoundT]] = {}

    async def ask(self, asked: AskedT, *, kind: Hashable = None, size: int = 1) -> FoundT:
        """The answer to one request; a call that nobody waits for any more is cancelled.

        Args:
            asked: The request.
            kind: Requests of one kind take as long as each other; None for one that goes alone.
            size: How much of a call it fills.

        Returns:
            What the call found for it.

        Raises:
            Exception: Whatever the call raises, to all of them.
        """
        if kind is None or size > self._most:
            (found,) = await self._call([asked])
            return found
        own = self._kinds.setdefault(kind, _Kind())
        if own.size + size > self._most:
            self._send(kind)
        future: asyncio.Future[FoundT] = asyncio.get_running_loop().create_future()
        own.held.append((asked, future))
        own.size += size
        if len(own.under_way) < self._calls or own.size >= self._most:
            self._send(kind)
        elif own.timer is None:
            loop = asyncio.get_running_loop()
            own.timer = loop.call_later(self._linger_s, self._send, kind)
        try:
            return await future
        finally:
            own.leave(future)

    def _send(self, kind: Hashable) -> None:
        own = self._kinds[kind]
        going = own.take()
        if going:
            task = asyncio.create_task(self._answer(going))
            own.under_way[task] = {future for _, future in going}
            task.add_done_callback(lambda task: self._ended(kind, task))
        elif not own.under_way:
            del self._kinds[kind]

    async def _answer(self, going: "Sequence[tuple[AskedT, asyncio.Future[FoundT]]]") -> None:
        try:
            found = await self._call([asked for asked, _ in going])
            for (_, future), one in zip(going, found, strict=True):
                if not future.done():
                    future.set_result(one)
        except asyncio.CancelledError:
            for _, future in going:
                future.cancel()
            raise
        except Exception as error:  # raised again where each is awaited
            for _, future in going:
                if not future.done():
                    future.set_exception(error)

    def _ended(self, kind: Hashable, task: "asyncio.Task[None]") -> None:
        own = self._kinds[kind]
        del own.under_way[task]
        if len(own.under_way) < self._calls:
            self._send(kind)


@final
class _Kind(Generic[AskedT, FoundT]):
    """Requests of one kind: those that wait for company, and who waits for each call."""

    def __init__(self) -> None:
        self.held: list[tuple[AskedT, asyncio.Future[FoundT]]] = []
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None
        self.under_way: dict[asyncio.Task[None], set[asyncio.Future[FoundT]]] = {}

    def take(self) -> "list[tuple[AskedT, asyncio.Future[FoundT]]]":
        """Those that wait for company, and are still wanted."""
        if self.timer is not None:
            self.timer.cancel()
        going = [(asked, future) for asked, future in self.held if not future.done()]
        self.held, self.size, self.timer = [], 0, None
        return going

    def leave(self, future: "asyncio.Future[FoundT]") -> None:
        """One waits no more; a call that is left by all is cancelled."""
        for task, futures in self.under_way.items():
            futures.discard(future)
            if not futures:
                task.cancel()
