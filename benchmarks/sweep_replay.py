"""What the platform would have decided on recorded trials, in any order of arrival."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, final

import moocore
import numpy as np
from scipy import stats

from onestep.sweeps.halving import Promotion, Rung, promotable
from onestep.sweeps.ranking import Values
from onestep.sweeps.stopping import Curve, Stopping, judge

Table = Sequence[Sequence[Values]]
"""Values by trial and rung; smaller is better in each place."""
MARGIN: Final = 1.1
"""Where the reference point lies, from the best value, 0, to beyond the worst, 1."""


@final
@dataclass(frozen=True, kw_only=True)
class Replay:
    """What was run, in order: a trial, the rung up to which it was paid for.

    Attributes:
        runs: Trial and rung of each run, in the order in which they began.
        whole: Trials that had the whole budget.
    """

    runs: tuple[tuple[int, int], ...]
    whole: tuple[int, ...]

    def winner(self, values: Table) -> int:
        """The best of those with the whole budget by the first value."""
        return min(self.whole, key=lambda trial: values[trial][-1])


def halved(
    values: Table,
    order: Sequence[int],
    *,
    reduction: int,
    at_once: int = 1,
    fill: bool = False,
    lasts: Callable[[int, int], float] = lambda trial, rung: 1.0,
) -> Replay:
    """Halving with a run of its own for each rung, as the book of a sweep starts them.

    Args:
        values: What was recorded.
        order: Trials in the order of their arrival.
        reduction: Of this many trials one goes on.
        at_once: How many run at once.
        fill: Whether rungs are filled before anybody goes on.
        lasts: How long a trial's run of a rung takes.

    Returns:
        What was run.
    """
    count, rungs = len(order), len(values[0])
    results: list[dict[int, Values]] = [{} for _ in range(rungs)]
    running: list[tuple[float, int, int]] = []
    runs: list[tuple[int, int]] = []
    now, begun = 0.0, 0
    while True:
        while len(running) < at_once:
            state = [
                Rung(
                    results=results[rung],
                    running=frozenset(one for _, one, at in running if at == rung),
                )
                for rung in range(rungs)
            ]
            found = promotable(state, count=count, reduction=reduction, fill=fill)
            if found is None and begun == count:
                break
            if found is None:
                found, begun = Promotion(number=begun, rung=0), begun + 1
            trial = order[found.number]
            runs.append((trial, found.rung))
            heappush(running, (now + lasts(trial, found.rung), found.number, found.rung))
        if not running:
            return Replay(runs=tuple(runs), whole=tuple(order[one] for one in results[-1]))
        now, number, rung = heappop(running)
        results[rung][number] = values[order[number]][rung]


def stopped(
    values: Table, order: Sequence[int], *, stopping: Stopping, budgets: tuple[int, ...]
) -> Replay:
    """Whole runs that are ended on their way, one after the other.

    Args:
        values: What was recorded on the way of whole runs.
        order: Trials in the order of their arrival.
        stopping: The rule.
        budgets: Samples of the rungs.

    Returns:
        What was run; each trial once, up to the rung at which it ended.
    """
    curves: list[Curve] = []
    runs = []
    for number, trial in enumerate(order):
        seen: dict[int, Values] = {}
        for rung, samples in enumerate(budgets):
            seen[samples] = values[trial][rung]
            curve = Curve(number=number, values=dict(seen))
            verdict = judge(stopping, curve, curves, budgets)
            if verdict is not None and not verdict.goes_on:
                break
        runs.append((trial, rung))
        curves.append(curve)
    last = len(budgets) - 1
    return Replay(runs=tuple(runs), whole=tuple(trial for trial, rung in runs if rung == last))


def hypervolume(points: np.ndarray, everything: np.ndarray, *, is_strict: bool = False) -> float:
    """Hypervolume of points, where all are scaled to a range of 1 and the reference lies beyond.

    Args:
        points: Rows of values.
        everything: Those of all trials.
        is_strict: Whether the range is that of the front alone, so that no point far from it makes
            what the front dominates look large.
    """
    front = everything[moocore.is_nondominated(everything)] if is_strict else everything
    low, high = front.min(0), front.max(0)
    scaled = (points - low) / (high - low)
    return float(moocore.hypervolume(scaled, ref=np.full(points.shape[1], MARGIN)))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; 1 where two numbers put trials in one order."""
    return float(stats.spearmanr(a, b).statistic)


def expected_best(values: Sequence[float]) -> list[float]:
    """The least of k values that are drawn without replacement, on the average, for every k.

    Args:
        values: All values.
    """
    ordered, n = sorted(values), len(values)
    expected = []
    for k in range(1, n + 1):
        # The chance that all k are among the worst n - place: 1 for none left out, and so on.
        left = [1.0]
        for place in range(n - k):
            left.append(left[-1] * (n - k - place) / (n - place))
        left += [0.0] * (n + 1 - len(left))
        expected.append(sum(v * (left[i] - left[i + 1]) for i, v in enumerate(ordered)))
    return expected


def cost(replay: Replay, paid: Mapping[tuple[int, int], float]) -> float:
    """What the runs of a replay cost together.

    Args:
        replay: The runs.
        paid: What a run costs, by trial and rung.
    """
    return sum(paid[run] for run in replay.runs)
