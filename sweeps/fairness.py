"""Fairness: trials are not ended early while their schedules stand apart; docs/fair_stopping.md."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..methods.core.schedule import Clock
from ..platform.training.assembly import Assembly
from .clocks import Difference, differences, planned
from .stopping import Stopping, StoppingKind

_SHOWN: Final = 3


def unfair_at(
    stopping: Stopping, trials: Sequence[Assembly], budgets: Sequence[int]
) -> tuple[int, tuple[Difference, ...]] | None:
    """The first comparison at which schedules of trials stand at different points.

    Args:
        stopping: The rule that compares.
        trials: Trials of the space, such as its corners.
        budgets: Samples at which they are measured; at the last nobody is ended any more.

    Returns:
        The samples, and the schedules; None if every comparison is fair.

    Raises:
        ValueError: If a trial cannot be planned on the samples of a rung.
    """
    for samples in budgets[:-1]:
        compared = [planned(trial, samples) for trial in trials] if stopping.replan else trials
        if found := differences(compared, samples):
            return samples, found
    return None


def require_fair(stopping: Stopping, trials: Sequence[Assembly], budgets: Sequence[int]) -> None:
    """Refuse a rule that would compare trials whose schedules stand at different points.

    Args:
        stopping: The rule that compares.
        trials: Trials of the space, such as its corners.
        budgets: Samples at which they are measured.

    Raises:
        ValueError: If a comparison is unfair; the message names the schedules and what to do.
    """
    if (unfair := unfair_at(stopping, trials, budgets)) is None:
        return
    samples, found = unfair
    raise ValueError(
        f"sweep.scheduler.kind={stopping.kind} would compare trials after {samples} samples whose "
        f"schedules stand at different points, {_listed(found)}: "
        f"{_remedy(stopping, trials, budgets, found)}"
    )


def judged(stopping: Stopping) -> str:
    """How a sweep made sure that trials are compared fairly, in one sentence.

    Args:
        stopping: Its rule, which was not refused.
    """
    if stopping.kind is StoppingKind.NONE:
        return "all trials run whole, and are compared at their ends alone"
    if stopping.is_population:
        return (
            "members are compared at equal samples of one planned run; their schedules differ only "
            "by what the population searches"
        )
    if stopping.replan:
        return (
            "re-planned: each rung is a run of its own whose schedules are planned on its samples, "
            "so that all trials that are compared stand at the end of them"
        )
    return (
        "not re-planned: at the outermost points of the space, and at others at random, all "
        "schedules stand at the same points of their clocks wherever trials are compared"
    )


def _remedy(
    stopping: Stopping,
    trials: Sequence[Assembly],
    budgets: Sequence[int],
    found: Sequence[Difference],
) -> str:
    otherwise = "set sweep.scheduler.kind=none, or try values with which they move together"
    if stopping.replan:
        return f"{_unmoved(found)}; {otherwise}"
    if not stopping.is_halving:
        return f"{otherwise}, or take asha or hyperband with sweep.scheduler.replan=true"
    left = unfair_at(replace(stopping, replan=True), trials, budgets)
    if left is None:
        return (
            "set sweep.scheduler.replan=true, which makes each rung a run planned on its samples, "
            f"or {otherwise.removeprefix('set ')}"
        )
    return f"{_unmoved(left[1])}; {otherwise}"


def _unmoved(found: Sequence[Difference]) -> str:
    paths = ", ".join(one.path for one in found[:_SHOWN])
    clocks = sorted({one.clock for each in found for s in each.standings for one in s})
    return (
        f"sweep.scheduler.replan=true moves the clock {Clock.PROGRESS} alone, and {paths} would "
        f"still differ on the clock {' and '.join(clocks)}"
    )


def _listed(found: Sequence[Difference]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(map(str, found[:_SHOWN])) + more
