"""Requests enter the engine's forwards as soon as there is room: no timer, no batch to wait for."""

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .company import Company, Round
from .engine import MAX_STEPS, Draw, Engine
from .errors import DeadlineUnmet, ModelDead, Overloaded
from .pace import Forecast, Pace
from .rows import Rows
from .stage import Stopwatch
from .tally import Counts

_LOOK_S: Final = 1.0
"""Seconds after which a forward under way is asked whether its thread lives."""
_LOG: Final = logging.getLogger(__name__)
_Waiting = tuple[Draw | Rows, "asyncio.Future[Tensor]"]
_Found = tuple["asyncio.Future[Tensor]", Tensor | Exception]


@final
class Batcher:
    """Runs one forward after the other, each with whatever is there when it begins.

    A lone request starts at once. Under load requests join and leave between two forwards, also
    those of several steps: none waits for another's end.

    Walks are led by a thread of its own. Where that runs the forwards too, there is one at a time;
    where another process does, a full one is sent there while it is at work, lest it wait for the
    next.

    A request that is given up is left before the next forward.

    Args:
        engine: The model.
        max_waiting: Requests that may wait before the next is refused.
        counts: Where forwards are counted.
        pace: What is known of how long forwards take.
        cores: Numbers of the cores that forwards run on; none for any.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_waiting: int,
        counts: Counts | None = None,
        pace: Pace | None = None,
        cores: Set[int] = frozenset(),
    ) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._counts = Counts() if counts is None else counts
        self._company: Company[asyncio.Future[Tensor]] = Company(rows=engine.bucket)
        self._pace = Pace(engine.buckets) if pace is None else pace
        self._asked: set[asyncio.Future[Tensor]] = set()
        self._stopwatches: dict[asyncio.Future[Tensor], Stopwatch] = {}
        self._arrived: deque[_Waiting] = deque()
        self._entering: Sequence[_Waiting] = ()
        self._left: Sequence[tuple[int, int]] = ()  # as the forwards under way will leave it
        self._rows_waiting = 0  # of walks that are in no forward
        self._running: deque[_Running] = deque()
        self._found: list[_Found] = []  # what those who asked are not told yet
        self._stirred = asyncio.Event()
        # Walks belong to the thread that began them.
        self._threads: list[threading.Thread] = []
        self._thread = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="engine",
            initializer=partial(_enlist, self._threads, cores),
        )
        self._busy_since: float | None = None
        self._dead = ""
        self._is_closed = False
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a forward, and that somebody waits for."""
        futures = [*(future for _, future in self._arrived), *self._company.absent]
        return sum(not future.done() for future in futures)

    def forecast(self, rows: int, *, most: int = MAX_STEPS) -> Forecast:
        """What is ahead of a request that comes now.

        Args:
            rows: How many images it asks for.
            most: Most evaluations of each that are asked about.
        """
        coming = [
            (draw.n, draw.steps)
            for draw, future in (*self._entering, *self._arrived)
            if not future.done()
        ]
        running_s = 0.0
        if running := self._running.copy():
            whole_s = sum(self._pace.seconds(each.taken.rows) for each in running)
            running_s = max(0.0, whole_s - (time.monotonic() - running[0].began))
        return self._forecast(rows, most, ahead=[*self._left, *coming], running_s=running_s)

    def _forecast(
        self, rows: int, most: int, *, ahead: Sequence[tuple[int, int]] = (), running_s: float = 0.0
    ) -> Forecast:
        return Forecast(
            rows,
            most=most,
            ahead=ahead,
            bucket=self._engine.bucket,
            pace=self._pace,
            running_s=running_s,
        )

    async def submit(
        self,
        draw: Draw | Rows,
        *,
        within_s: float = math.inf,
        is_asked: bool = False,
        is_begun: bool = False,
        stopwatch: Stopwatch | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The images of one request.

        Args:
            draw: An accepted request.
            within_s: Seconds after which nobody needs them any more.
            is_asked: Whether the client said so.
            is_begun: Whether it waits however many do, because a part of its answer has been sent.
            stopwatch: Notes its forwards; None for nobody who wants to know.

        Returns:
            Its images, in [-1, 1] but for the model's own overshoot.

        Raises:
            ModelDead: If no forward will ever run again.
            Overloaded: If too many requests wait already, or so much is ahead that the server's own
                bound is predicted to be missed.
            DeadlineUnmet: If its time is over, or is predicted to be before it has its images.
        """
        if self._dead:
            raise ModelDead(self._dead)
        # Only where it may matter are those told apart that were given up.
        at_most = 0 if is_begun else len(self._arrived) + self._company.waiting
        if at_most >= self._max_waiting and (waiting := self.waiting) >= self._max_waiting:
            raise Overloaded(waiting)
        self._check_time(draw, within_s, is_asked=is_asked)
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._asked.add(future)
        if stopwatch is not None:
            self._stopwatches[future] = stopwatch
        self._arrived.append((draw, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        elif self._may_begin(self._rows_to_come):
            self._stirred.set()
        try:
            async with asyncio.timeout(None if within_s == math.inf else within_s):
                return await future
        except TimeoutError:  # the future is cancelled with it, by which its walk is left
            raise DeadlineUnmet(within_s, is_asked=is_asked) from None
        finally:
            self._asked.discard(future)
            if stopwatch is not None:
                del self._stopwatches[future]

    def _check_time(self, draw: Draw | Rows, within_s: float, *, is_asked: bool) -> None:
        """Refuses what is predicted to come too late, as far as there is reason to trust that."""
        predicted_s = self.forecast(draw.n, most=draw.steps).seconds(draw.steps)
        if predicted_s <= within_s or not self._pace.is_fresh:
            return
        is_idle = not (self._arrived or self._entering or len(self._company))
        if is_idle and not self._pace.is_sure(min(draw.n, self._engine.bucket)):
            return  # one slow first forward must not refuse all: nobody else would be delayed
        alone_s = self._forecast(draw.n, draw.steps).seconds(draw.steps)
        if not is_asked and alone_s <= within_s:  # later it may be in time
            after_s = math.ceil(predicted_s - within_s)
            raise Overloaded(self.waiting, retry_after_s=after_s)
        raise DeadlineUnmet(within_s, is_asked=is_asked, predicted_s=predicted_s, steps=draw.steps)

    def close(self) -> None:
        """Ends the thread; nobody waits any more, and nobody may come."""
        self._is_closed = True
        self._thread.shutdown(wait=False)

    def check(self, *, stuck_s: float) -> None:
        """Tells a model that answers no more from one that is busy.

        Args:
            stuck_s: Seconds that one forward may take.

        Raises:
            ModelDead: If its thread is dead, or a forward takes longer.
        """
        if self._is_thread_dead:
            self._die("its thread is dead")
        if self._dead:
            raise ModelDead(self._dead)
        begins = [each.began for each in self._running.copy()]
        begins += [] if self._busy_since is None else [self._busy_since]
        busy_s = time.monotonic() - min(begins) if begins else 0.0
        if busy_s > stuck_s:
            raise ModelDead(f"a forward must take at most {stuck_s:g} s, got {busy_s:.0f} s so far")

    @property
    def _is_thread_dead(self) -> bool:
        return any(not thread.is_alive() for thread in self._threads)

    def _die(self, why: str) -> None:
        """Answers all who wait, for whom no forward will run."""
        if not (self._dead or self._is_closed):
            _LOG.error("%s answers no more: %s", self._engine.record.name, why)
        self._dead = why
        self._company.clear()
        self._arrived.clear()
        self._running.clear()
        self._entering, self._left, self._rows_waiting, self._busy_since = (), (), 0, None
        self._tell()
        for future in self._asked:
            if not future.done():
                future.set_exception(ModelDead(why))

    async def _work(self) -> None:
        try:
            await self._answer_all()
        except asyncio.CancelledError:  # the loop ends, and who waits is told the same
            raise
        except ModelDead as error:
            self._die(error.why)
        except BaseException as error:  # also what would end a thread: nobody must wait for ever
            self._die(f"{type(error).__name__}: {error}")

    async def _answer_all(self) -> None:
        while self._arrived or len(self._company):
            await self._until_something_is_to_do()
            arrived, self._arrived = self._arrived, deque()
            self._entering = arrived
            self._busy_since = time.monotonic()
            await self._advanced(arrived)
            self._busy_since = None
            self._tell()

    def _tell(self) -> None:
        """Tells those who asked what was found."""
        told, self._found = self._found, []
        for future, found in told:
            if future.done():
                continue
            if isinstance(found, Exception):  # raised again where the request is awaited
                future.set_exception(found)
            else:
                future.set_result(found)

    async def _advanced(self, arrived: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        advancing = loop.run_in_executor(self._thread, self._advance, arrived, loop)
        while not advancing.done():
            await asyncio.wait((advancing,), timeout=_LOOK_S)
            if not advancing.done():
                self._check_thread()
        advancing.result()

    @property
    def _rows_to_come(self) -> int:
        return self._rows_waiting + sum(draw.n for draw, _ in self._arrived)

    def _may_begin(self, rows: int) -> bool:
        """Whether so many rows may have a forward: any the first, and a full one another."""
        if self._running:
            return len(self._running) < self._engine.ahead and rows >= self._engine.bucket
        return rows > 0

    async def _until_something_is_to_do(self) -> None:
        while True:
            self._stirred.clear()
            if not self._running or self._running[0].coming.done():
                return
            if self._may_begin(self._rows_to_come):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._stirred.wait()
            self._check_thread()

    def _check_thread(self) -> None:
        if self._is_thread_dead:
            raise RuntimeError("its thread is dead")

    @torch.inference_mode()
    def _advance(self, arrived: Sequence[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Ends and begins forwards, and finds the images of the requests that end so."""
        self._end()
        self._company.keep(lambda future: not future.done())  # the client of others went away
        for draw, future in arrived:
            if not future.done():
                try:
                    self._company.add(future, self._engine.begin(draw), steps=draw.steps)
                except Exception as error:
                    self._found.append((future, error))
        self._look()
        self._entering = ()
        while self._may_begin(self._company.rows_waiting):
            self._begin(loop)
        self._end()

    def _look(self) -> None:
        self._left, self._rows_waiting = self._company.left, self._company.rows_waiting

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins a forward; where this thread runs it, that takes as long as it does."""
        running = _Running(self._company.take())
        self._running.append(running)
        self._look()
        self._counts.forwards += 1
        self._counts.rows += running.taken.rows
        try:
            running.coming = self._engine.ask(running.taken.question)
        except ModelDead:  # nor will any other forward run
            raise
        except Exception as error:
            self._lose(self._running.pop(), error)
            return
        running.coming.add_done_callback(partial(_came, running.ended, loop, self._stirred))

    def _end(self) -> None:
        """Takes the answers of all forwards that have ended."""
        while self._running and self._running[0].coming.done():
            running = self._running[0]
            began = time.monotonic()
            # An answer is there a moment before those are told who wait for it.
            came = running.ended[0] if running.ended else began
            try:
                ended = self._company.give(running.taken, running.coming.result())
            except ModelDead:
                raise
            except Exception as error:
                ended = []
                self._lose(running, error)
            for future, x in ended:
                try:
                    self._found.append((future, self._engine.images(x)))
                except Exception as error:
                    self._found.append((future, error))
            self._running.popleft()
            self._note(running, came, after_s=time.monotonic() - began)
        self._look()

    def _lose(self, running: "_Running", error: Exception) -> None:
        self._found += [(future, error) for future in self._company.lose(running.taken)]

    def _note(self, running: "_Running", ended: float, *, after_s: float) -> None:
        """Takes into account how long a forward took, and what was done with its answer."""
        for turn in running.taken.turns if self._stopwatches else ():
            if (stopwatch := self._stopwatches.get(turn.key)) is not None:
                stopwatch.note(running.began, ended, running.taken.rows)
        seconds = ended - running.began + after_s
        self._counts.forward_seconds += seconds
        self._pace.note(self._engine.bucket_of(running.taken.rows), seconds)
        for behind in self._running:  # it has waited for this one
            behind.began = max(behind.began, ended)


@final
class _Running:
    """A forward under way.

    Args:
        taken: Its rows.

    Attributes:
        began: Since when it can have run.
        coming: Its answer; nothing while the thread that asks runs it.
        ended: When its answer came, as soon as it has.
    """

    def __init__(self, taken: Round["asyncio.Future[Tensor]"]) -> None:
        self.taken = taken
        self.began = time.monotonic()
        self.coming: Future[Tensor] = Future()
        self.ended: list[float] = []


def _came(
    ended: list[float],
    loop: asyncio.AbstractEventLoop,
    stirred: asyncio.Event,
    coming: "Future[Tensor]",
) -> None:
    """Notes when an answer came, and wakes the event loop; no method, as below."""
    del coming
    ended.append(time.monotonic())
    with suppress(RuntimeError):  # a loop that has ended does nothing more
        loop.call_soon_threadsafe(stirred.set)


def _enlist(threads: list[threading.Thread], cores: Set[int]) -> None:
    """Notes the thread that runs this and binds it to cores."""
    # No method, whose circle would keep a closed model in memory.
    threads.append(threading.current_thread())
    if cores:
        os.sched_setaffinity(0, cores)  # of this thread, and of those that torch starts for it
