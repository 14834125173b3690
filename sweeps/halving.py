"""Halving: the budgets of its rungs, what they cost, and who goes on to the next rung."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, isfinite
from typing import final

from .ranking import Values, ranked


@final
@dataclass(frozen=True, kw_only=True)
class Rung:
    """What is known of the runs of one rung.

    Attributes:
        results: Values of the runs that have ended, by configuration; not finite for one that
            failed.
        running: Configurations whose runs have been started and have not ended.
        closed: Configurations that cannot go on any more, whatever their results; they count.
    """

    results: Mapping[int, Values] = field(default_factory=dict)
    running: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()

    @property
    def entered(self) -> frozenset[int]:
        """Configurations whose runs have been started."""
        return self.running | self.results.keys()

    @property
    def failed(self) -> frozenset[int]:
        """Configurations whose runs have failed."""
        return frozenset(k for k, one in self.results.items() if not all(map(isfinite, one)))

    @property
    def held(self) -> frozenset[int]:
        """Configurations whose runs have been started and have not failed."""
        return self.entered - self.failed


@final
@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A configuration that is to run again, on the budget of a higher rung.

    Attributes:
        number: The configuration.
        rung: The rung that it goes to, from 1.
    """

    number: int
    rung: int


def ladder(grace: int, total: int, reduction: int, *, batch: int = 1) -> tuple[int, ...]:
    """Budgets of the rungs in samples, from the lowest to the whole one.

    The rungs are laid from the whole budget down, so that no rung lies just below it; the lowest is
    above ``grace`` by less than a factor of ``reduction``, or a batch below it.

    Reference: Li et al. 2018 (Hyperband), arXiv:1603.06560v4, Alg. 1: r_i = R eta^(i - s).
    Differs from the paper: budgets are whole batches, and all but the whole one are multiples of
        the lowest, so that a run that is measured each time as many samples have passed is measured
        at every rung.

    Args:
        grace: Samples before which no trial is judged.
        total: Samples of a whole run.
        reduction: Of this many trials one goes on, at least 2.
        batch: Samples after which every trial can be measured.

    Returns:
        The budgets, rising; the last is ``total``.

    Raises:
        ValueError: If a number is out of range, or there is no rung below the whole run.
    """
    if min(grace, batch) < 1 or reduction < 2:
        raise ValueError(
            "rungs need grace and batch of at least 1 and a reduction of at least 2, got "
            f"{grace}, {batch} and {reduction}"
        )
    rungs, least = 0, max(grace, batch)
    while least * reduction ** (rungs + 1) <= total:
        rungs += 1
    lowest = total // reduction**rungs // batch * batch
    if not rungs:
        raise ValueError(
            f"no rung of at least {least} samples fits {reduction} times into the "
            f"{total} samples of a whole run"
        )
    return (*(lowest * reduction**rung for rung in range(rungs)), total)


def sizes(count: int, rungs: int, reduction: int) -> tuple[int, ...]:
    """How many configurations run at each rung, if each is filled before the next begins.

    Args:
        count: Configurations at the lowest rung.
        rungs: Number of rungs.
        reduction: Of this many configurations one goes on.

    Returns:
        The numbers, falling, at least 1.
    """
    return tuple(max(1, count // reduction**rung) for rung in range(rungs))


def bracket_cost(budgets: Sequence[int], count: int, reduction: int, *, replan: bool) -> int:
    """Samples of all configurations of a bracket.

    Asynchronous promotions come on top where an early result is overtaken later.

    Args:
        budgets: Budgets of the rungs.
        count: Configurations at the lowest rung.
        reduction: Of this many configurations one goes on.
        replan: Whether each rung is a run of its own; otherwise a run goes on from the rung below.

    Returns:
        The samples.
    """
    paid = budgets if replan else [b - a for a, b in zip((0, *budgets), budgets, strict=False)]
    return sum(
        n * each for n, each in zip(sizes(count, len(budgets), reduction), paid, strict=True)
    )


def promotable(
    rungs: Sequence[Rung], *, count: int, reduction: int, fill: bool = False
) -> Promotion | None:
    """Who is to go on to the next rung now, if anybody.

    Of n results of a rung the best n // reduction may go on; who has not is taken from the highest
    rung first, the best first. This depends on which results are there, never on the order in which
    they came; a promotion once made stays, though, so that a late result may find that a worse one
    has gone on before it. While configurations are still to start it waits until n // reduction is
    more than have gone on, or every change among the best would be one more run; once all have
    started it goes on, so that the winner is not a wrong one. Where a run fails that has gone on,
    the next best takes its place. Where nothing else is left to do and no run has had the whole
    budget, the best that is left of the highest rung goes on: a sweep ends with a whole run.

    Where rungs are filled first, only those go on that are among the best of their rung whatever
    its other results will be, so that no promotion is one too many.

    Reference: Li et al. 2020 (ASHA), arXiv:1810.05934v5, Alg. 2, get_job; filled rungs are those of
        Jamieson and Talwalkar 2015 (successive halving), arXiv:1502.07943, Fig. 3.
    Differs from the papers: the waiting, the last two clauses, and that who is sure of a place does
        not wait for the rest of a rung.

    Args:
        rungs: What is known of each rung, the lowest first.
        count: Configurations that the lowest rung is to have in the end.
        reduction: Of this many results one goes on, at least 2.
        fill: Whether rungs are filled first.

    Returns:
        The promotion; None where a new configuration is to start, if fewer than ``count`` have,
        and otherwise runs are to be waited for, or all is done.
    """
    if fill:
        if (found := _sure(rungs, count, reduction)) is not None:
            return found
        return to_the_top(rungs) if len(rungs[0].results) >= count else None
    is_filling = len(rungs[0].entered) < count
    for low in reversed(range(len(rungs) - 1)):
        quota = _ended(rungs, low) // reduction
        if is_filling and len(rungs[low + 1].held) >= quota:
            continue
        if (found := _next(rungs, low, quota)) is not None:
            return found
    return to_the_top(rungs) if len(rungs[0].results) >= count else None


def to_the_top(rungs: Sequence[Rung]) -> Promotion | None:
    """Who is to go on so that a sweep ends with a whole run, if there is none and nothing runs.

    Args:
        rungs: What is known of each rung, the lowest first.
    """
    if rungs[-1].held or any(rung.running for rung in rungs):
        return None
    for low in reversed(range(len(rungs) - 1)):
        if (found := _next(rungs, low, len(rungs[low].results))) is not None:
            return found
    return None


def bracket_of(number: int, brackets: int, reduction: int) -> int:
    """The bracket of Hyperband that a trial belongs to, by its place among all trials alone.

    Bracket b begins at rung b. Each is to cost about as much as the others, so that the lower ones
    have more trials, and every beginning of a sweep is spread over them as evenly as can be.

    Reference: Li et al. 2018 (Hyperband), arXiv:1603.06560v4, Alg. 1, n of a bracket.
    Differs from the paper: brackets are filled side by side, not one after the other.

    Args:
        number: Number of the trial among those that were begun, from 0.
        brackets: Number of brackets, which is that of the rungs.
        reduction: Of this many trials one goes on.

    Returns:
        The bracket, from 0.
    """
    cycle = _cycle(brackets, reduction)
    return cycle[number % len(cycle)]


@lru_cache(maxsize=16)
def _cycle(brackets: int, reduction: int) -> tuple[int, ...]:
    """Brackets of consecutive trials, until the shares are exact and all begins again."""
    weights = [
        ceil(brackets * reduction**halvings / (halvings + 1))
        for halvings in reversed(range(brackets))
    ]
    filled, whole = [0] * brackets, sum(weights)
    order: list[int] = []
    for number in range(1, whole + 1):
        short = [number * weight - whole * n for weight, n in zip(weights, filled, strict=True)]
        order.append(short.index(max(short)))
        filled[order[-1]] += 1
    return tuple(order)


def _sure(rungs: Sequence[Rung], count: int, reduction: int) -> Promotion | None:
    """Who is among the best of a filled rung whatever comes, from the highest rung first."""
    highest, due = None, count
    for low in range(len(rungs) - 1):
        ended = _ended(rungs, low)
        found = _next(rungs, low, max(0, due // reduction - (due - ended)))
        highest = found or highest
        is_over = ended == due and found is None
        # Fewer than planned come where runs of the rung below have failed.
        due = len(rungs[low + 1].held) if is_over else max(1, due // reduction)
    return highest


def _ended(rungs: Sequence[Rung], low: int) -> int:
    """Runs of a rung that ended; above the lowest others run in place of those that failed."""
    return len(rungs[low].results) - (len(rungs[low].failed) if low else 0)


def _next(rungs: Sequence[Rung], low: int, quota: int) -> Promotion | None:
    """The first of a rung's best that has not gone on; one whose run failed never does."""
    results, gone = rungs[low].results, rungs[low + 1].entered
    shut = rungs[low].closed - rungs[low + 1].held  # the next best go in their places
    shut |= rungs[low + 1].failed
    for number in [one for one in ranked(results) if one not in shut][:quota]:
        if number not in gone and all(map(isfinite, results[number])):
            return Promotion(number=number, rung=low + 1)
    return None
