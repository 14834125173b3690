"""Requests that wait together are run together, as soon as the engine is free."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, final

from .errors import Overloaded


class Sized(Protocol):
    """A request of the batcher.

    Attributes:
        n: Rows that it takes in a forward.
        steps: Only requests with the same steps run together.
    """

    @property
    def n(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102


RequestT = TypeVar("RequestT", bound=Sized)
ResultT = TypeVar("ResultT")


@final
class Batcher(Generic[RequestT, ResultT]):
    """Runs one batch at a time in a thread and gathers the next one meanwhile.

    There is no timer to tune: a lone request starts at once, and under load the batch is what
    arrived while the one before it ran.

    Args:
        run: Results of several requests, in order; called in a thread, never twice at once.
        rows: Rows of one batch; a larger request has a batch of its own.
        max_waiting: Requests that may wait before the next is refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[RequestT]], Sequence[ResultT]],
        *,
        rows: int,
        max_waiting: int,
    ) -> None:
        self._run = run
        self._rows = rows
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[RequestT, asyncio.Future[ResultT]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, request: RequestT) -> ResultT:
        """The result of one request.

        Args:
            request: What to run.

        Returns:
            Its result.

        Raises:
            Overloaded: If too many requests wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(len(self._waiting))
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._take():
            requests = [request for request, _ in batch]
            try:
                results = await asyncio.to_thread(self._run, requests)
            except Exception as error:  # raised again where each of the requests is awaited
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    def _take(self) -> list[tuple[RequestT, asyncio.Future[ResultT]]]:
        """The oldest request, and all others that fit beside it; nobody is overtaken for ever."""
        batch: list[tuple[RequestT, asyncio.Future[ResultT]]] = []
        rest: deque[tuple[RequestT, asyncio.Future[ResultT]]] = deque()
        rows = 0
        for request, future in self._waiting:
            if future.done():  # the client went away
                continue
            fits = not batch or (
                request.steps == batch[0][0].steps and rows + request.n <= self._rows
            )
            if fits:
                batch.append((request, future))
                rows += request.n
            else:
                rest.append((request, future))
        self._waiting = rest
        return batch
