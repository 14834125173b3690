"""Requests enter the engine's forwards as soon as there is room: no timer, no batch to wait for."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .company import Answer, Company
from .engine import Draw, Engine
from .errors import Overloaded
from .rows import Rows
from .tally import Counts
from .walk import Question

_Waiting = tuple[Draw | Rows, "asyncio.Future[Tensor]"]
_Found = tuple["asyncio.Future[Tensor]", Tensor | Exception]


@final
class Batcher:
    """Runs one forward at a time in a thread of its own, with whatever is there when it begins.

    A lone request starts at once. Under load requests join and leave between two forwards, also
    those of several steps: none waits for another's end.

    Args:
        engine: The model.
        max_waiting: Requests that may wait before the next is refused.
        counts: Where forwards are counted.
    """

    def __init__(self, engine: Engine, *, max_waiting: int, counts: Counts | None = None) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._counts = Counts() if counts is None else counts
        self._company: Company[asyncio.Future[Tensor]] = Company(
            _counted(engine.answer, self._counts), rows=engine.bucket
        )
        self._arrived: deque[_Waiting] = deque()
        # Walks belong to the thread that began them.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a forward."""
        return len(self._arrived) + self._company.waiting

    async def submit(self, draw: Draw | Rows) -> Float[Tensor, "n c h w"]:
        """The images of one request.

        Args:
            draw: An accepted request.

        Returns:
            Its images, in [-1, 1] but for the model's own overshoot.

        Raises:
            Overloaded: If too many requests wait already.
        """
        if self.waiting >= self._max_waiting:
            raise Overloaded(self.waiting)
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._arrived.append((draw, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        """Ends the thread; nobody waits any more, and nobody may come."""
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._arrived or len(self._company):
            arrived, self._arrived = self._arrived, deque()
            for future, found in await loop.run_in_executor(self._thread, self._advance, arrived):
                if future.done():
                    continue
                if isinstance(found, Exception):  # raised again where the request is awaited
                    future.set_exception(found)
                else:
                    future.set_result(found)

    @torch.inference_mode()
    def _advance(self, arrived: Sequence[_Waiting]) -> list[_Found]:
        """Run one forward: images, or why there are none, of the requests that end by it."""
        self._company.keep(lambda future: not future.done())  # the client of others went away
        found: list[_Found] = []
        for draw, future in arrived:
            if not future.done():
                try:
                    self._company.add(future, self._engine.begin(draw))
                except Exception as error:
                    found.append((future, error))
        if not len(self._company):
            return found
        begin = time.perf_counter()
        try:
            return [*found, *self._forward()]
        finally:
            self._counts.forward_seconds += time.perf_counter() - begin

    def _forward(self) -> list[_Found]:
        try:
            ended = self._company.advance()
        except Exception as error:
            return [(future, error) for future in self._company.clear()]
        found: list[_Found] = []
        for future, x in ended:
            try:
                found.append((future, self._engine.images(x)))
            except Exception as error:
                found.append((future, error))
        return found


def _counted(answer: Answer, counts: Counts) -> Answer:
    """Counts what is asked; no method, whose circle would keep a closed model in memory."""

    def counted(question: Question) -> Float[Tensor, " b *d"]:
        counts.forwards += 1
        counts.rows += len(question)
        return answer(question)

    return counted
