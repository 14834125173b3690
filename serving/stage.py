"""Where the time of a request goes on a replica: in the queue, in forwards, in making its file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

MAX_STAGES: Final = 128
"""Most that are told of one request; of those of many forwards, the first."""


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """A time of which it is known what it was spent on.

    Attributes:
        name: ``queue``, ``forward`` or ``encode``.
        began_ns: When it began, in nanoseconds since 1970 by the clock of its machine.
        ended_ns: When it ended.
        rows: Rows of a forward, those of other requests among them; None of other stages.
    """

    name: str
    began_ns: int
    ended_ns: int
    rows: int | None = None


Note = Callable[[tuple[Stage, ...]], None]
"""Is told where time went."""


@final
class Stopwatch:
    """Takes the times of one request; it waits for its first forward from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._forwards: list[tuple[float, float, int]] = []

    def note(self, began: float, ended: float, rows: int) -> None:
        """A forward has computed rows of the request.

        Args:
            began: Since when it can have run, by the clock that only grows.
            ended: When its answer came.
            rows: Rows of all requests in it.
        """
        if len(self._forwards) < MAX_STAGES:
            self._forwards.append((began, ended, rows))

    def stages(self, encoding_s: float) -> tuple[Stage, ...]:
        """What the time was spent on until now.

        Args:
            encoding_s: Seconds in which its file was made, which is there now.

        Returns:
            The stages in their order.
        """
        now, now_ns = time.monotonic(), time.time_ns()

        def stage(name: str, began: float, ended: float, rows: int | None = None) -> Stage:
            begins, ends = (now_ns - int(1e9 * (now - moment)) for moment in (began, ended))
            return Stage(name=name, began_ns=begins, ended_ns=ends, rows=rows)

        queue = [stage("queue", self._began, began) for began, _, _ in self._forwards[:1]]
        forwards = [stage("forward", began, ended, rows) for began, ended, rows in self._forwards]
        found = (*queue, *forwards)[: MAX_STAGES - 1]
        return (*found, stage("encode", now - encoding_s, now))
