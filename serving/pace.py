"""How long forwards take, and from that how long a request will."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final, final

_KEPT: Final = 9
_FRESH_S: Final = 10.0
_SURE: Final = 3


@final
class Pace:
    """Seconds of a forward by its bucket: the median of the last nine, which no outlier moves.

    One thread notes and another asks.

    Args:
        buckets: Rows of the forwards, ascending.
        clock: Seconds that only grow.
    """

    def __init__(
        self, buckets: Sequence[int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._taken: dict[int, tuple[float, ...]] = dict.fromkeys(buckets, ())
        self._clock = clock
        self._noted: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether a forward ended within the last ten seconds.

        What is older may choose but must not refuse: where all are refused nothing is measured.
        """
        return self._noted is not None and self._clock() - self._noted <= _FRESH_S

    def note(self, bucket: int, seconds: float) -> None:
        """Take a forward into account.

        Args:
            bucket: Its rows, with those that fill it.
            seconds: How long it took.
        """
        self._taken[bucket] = (*self._taken[bucket], seconds)[-_KEPT:]
        self._noted = self._clock()

    def seconds(self, rows: int) -> float:
        """How long a forward of so many rows takes.

        Args:
            rows: From 1 to the largest bucket.

        Returns:
            The median of its bucket; where that has not run, the one of the next larger that has,
            or else the largest that has, in proportion; 0 where none has.
        """
        wanted, nearest, taken = self._nearest(rows)
        return statistics.median(taken) * max(1.0, wanted / nearest) if taken else 0.0

    def is_sure(self, rows: int) -> bool:
        """Whether that is the median of three forwards at least, which one slow one moves not.

        Args:
            rows: From 1 to the largest bucket.
        """
        return len(self._nearest(rows)[2]) >= _SURE

    def _nearest(self, rows: int) -> tuple[int, int, Sequence[float]]:
        """The bucket of so many rows, the one that tells of it, and what forwards of that took."""
        wanted = next(bucket for bucket in self._taken if bucket >= rows)
        known = {bucket: taken for bucket, taken in self._taken.items() if taken}
        if not known:
            return wanted, wanted, ()
        nearest = next((bucket for bucket in known if bucket >= wanted), max(known))
        return wanted, nearest, known[nearest]


@final
class Forecast:
    """What is ahead of a request of some rows, and how long it will take with that.

    Rows of all requests take turns: for each of its evaluations a request waits for one of every
    other that is not at its end. Requests that come later are not foreseen.

    Args:
        rows: Rows of the request.
        most: Most evaluations that are asked about.
        ahead: Rows and evaluations that the requests before it still need.
        bucket: Most rows of a forward.
        pace: How long forwards take.
        running_s: Seconds of the forward under way that are left.
    """

    def __init__(
        self,
        rows: int,
        *,
        most: int,
        ahead: Iterable[tuple[int, int]],
        bucket: int,
        pace: Pace,
        running_s: float,
    ) -> None:
        ending = [0] * (most + 1)  # rows by the round after which they are gone
        needed = 0
        for others, left in ahead:
            ending[min(left, most)] += others
            needed += others * left
        self.forwards_ahead = needed / bucket
        taken = {0: 0.0, bucket: pace.seconds(bucket)}
        present = rows + sum(ending)
        rounds: list[float] = []
        for gone in ending[:most]:
            present -= gone
            full, rest = divmod(present, bucket)
            if rest not in taken:
                taken[rest] = pace.seconds(rest)
            rounds.append(full * taken[bucket] + taken[rest])
        self._after = list(accumulate(rounds, initial=running_s))

    def seconds(self, steps: int) -> float:
        """How long the request will take.

        Args:
            steps: Its evaluations, at most as many as were asked about.

        Returns:
            Seconds from now until its images are there.
        """
        return self._after[steps]
