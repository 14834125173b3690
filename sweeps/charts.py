"""Charts of a sweep: objectives against keys and each other, importances, learning curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import moocore
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ..platform.evaluation.figures import COLOURS, GREY, INK, style
from .condition import Scalar
from .importance import Importances
from .losses import Loss
from .objective import Number, Objective, Objectives
from .record import Outcome, TrialRecord

_LOOKS: Final = {
    Outcome.FINISHED: {"color": COLOURS[0], "marker": "o"},
    Outcome.UNDERWAY: {"color": GREY, "marker": "o"},
    Outcome.STOPPED: {"color": GREY, "marker": "x"},
}
_LOG_FROM: Final = 8.0
"""Ratio of the largest loss to the least from which the axis is logarithmic."""


def against_key(
    trials: Sequence[TrialRecord], objective: Objective, key: str, law: BaseDistribution
) -> Figure:
    """The first objective against a swept key, with intervals.

    Args:
        trials: The trials that were measured.
        objective: The first objective.
        key: The key, which not all trials may have.
        law: What it was drawn from.
    """
    figure, axis = _panel()
    if isinstance(law, CategoricalDistribution):
        axis.set_xticks(range(len(law.choices)), [str(one) for one in law.choices])
        axis.set_xlim(-0.5, len(law.choices) - 0.5)
    for outcome in _LOOKS:
        some = [one for one in trials if one.outcome is outcome and key in one.values]
        where = [_position(one.values[key], law) for one in some]
        _dots(axis, where, [one.results[0] for one in some], outcome)
    if isinstance(law, FloatDistribution | IntDistribution) and law.log:
        axis.set_xscale("log")
    _label(axis, key, str(objective))
    return figure


def pareto(trials: Sequence[TrialRecord], objectives: Objectives, *, place: int) -> Figure:
    """Another objective against the first, with the Pareto set of the finished trials.

    Args:
        trials: The trials that were measured.
        objectives: At least two.
        place: Which of them, from 1.
    """
    finished = [one for one in trials if one.outcome is Outcome.FINISHED]
    best = _pareto_set(finished, objectives)
    figure, axis = _panel()
    for outcome in _LOOKS:
        some = [one for one in trials if one.outcome is outcome]
        firsts = [one.results[0] for one in some]
        _dots(axis, [one.value for one in firsts], [one.results[place] for one in some], outcome)
        axis.hlines(
            [one.results[place].value for one in some],
            [one.low for one in firsts],
            [one.high for one in firsts],
            colors=_LOOKS[outcome]["color"],
            lw=1.0,
            alpha=0.45,
        )
    ordered = sorted((one.results[0].value, one.results[place].value) for one in best)
    axis.plot(
        [first for first, _ in ordered],
        [second for _, second in ordered],
        color=COLOURS[1],
        # With more than two objectives the set is no line in this plane.
        lw=1.2 if len(objectives.all) == 2 else 0.0,
        marker="o",
        markersize=9,
        markerfacecolor="none",
        zorder=0,
    )
    for one in best:
        axis.annotate(
            str(one.number),
            (one.results[0].value, one.results[place].value),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    _label(axis, _better(objectives.lead), _better(objectives.all[place]))
    return figure


def importances(found: Importances) -> Figure:
    """The share of each key in the variance of each objective.

    Args:
        found: The shares.
    """
    keys = sorted(
        {key for shares in found.shares.values() for key in shares},
        key=lambda key: sum(shares.get(key, 0.0) for shares in found.shares.values()),
    )
    high = 0.5 + 0.26 * len(keys) * len(found.shares)
    figure, axis = _panel(height=high + 0.5)
    thick = 0.8 / len(found.shares)
    for place, (label, shares) in enumerate(found.shares.items()):
        where = [row + 0.4 - (place + 0.5) * thick for row in range(len(keys))]
        values = [shares.get(key, 0.0) for key in keys]
        colour = COLOURS[place % len(COLOURS)]
        axis.barh(where, values, height=0.9 * thick, color=colour, label=label)
    axis.set_yticks(range(len(keys)), keys)
    axis.set_xlim(0.0, 1.0)
    _label(axis, "share of the variance, alone", "")
    if len(found.shares) > 1:
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def losses(curves: Mapping[int, Sequence[Loss]], *, leaders: Sequence[int]) -> Figure:
    """The training loss of each trial over the samples that it has seen.

    Args:
        curves: Readings by trial.
        leaders: Trials that are named, best first; the others are grey.
    """
    figure, axis = _panel()
    named = dict(zip(leaders, COLOURS, strict=False))
    for number in _leaders_last(curves, leaders):
        samples, values = zip(*curves[number], strict=True)
        axis.plot(
            samples,
            values,
            color=named.get(number, GREY),
            alpha=0.9 if number in named else 0.35,
            lw=1.3,
            marker="." if len(samples) == 1 else None,
            label=f"trial {number}" if number in named else None,
        )
    every = [value for readings in curves.values() for _, value in readings]
    if min(every) > 0.0 and max(every) / min(every) > _LOG_FROM:
        axis.set_yscale("log")
    _label(axis, "samples seen", "training loss")
    _legend(axis)
    return figure


def rungs(
    curves: Mapping[int, Mapping[int, float]], objective: Objective, *, leaders: Sequence[int]
) -> Figure:
    """The first objective of each trial over the samples at which it was measured.

    Args:
        curves: Values by samples, of each trial.
        objective: The first objective.
        leaders: Trials that are named, best first; the others are grey.
    """
    figure, axis = _panel()
    named = dict(zip(leaders, COLOURS, strict=False))
    for number in _leaders_last(curves, leaders):
        samples, values = zip(*sorted(curves[number].items()), strict=True)
        colour, label = named.get(number, GREY), f"trial {number}" if number in named else None
        axis.plot(samples, values, color=colour, lw=1.3, marker="o", markersize=3.5, label=label)
    _label(axis, "samples seen", str(objective))
    _legend(axis)
    return figure


def _pareto_set(trials: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    if not trials:
        return []
    points = np.array([objectives.smaller_is_better(one.results) for one in trials])
    is_best = moocore.is_nondominated(points, keep_weakly=True)
    return [one for one, is_in in zip(trials, is_best, strict=True) if is_in]


def _panel(height: float = 3.0) -> tuple[Figure, Axes]:
    """One chart, small enough to be read on a phone."""
    figure = Figure(figsize=(4.6, height), layout="constrained")
    axis = figure.subplots()
    style(axis)
    return figure, axis


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=8.5, color=INK)
    axis.set_ylabel(y, fontsize=8.5, color=INK)


def _leaders_last(trials: Iterable[int], leaders: Sequence[int]) -> list[int]:
    """Trials in the order in which they are drawn, which is that of the legend, too."""
    known = set(trials)
    return [*sorted(known - set(leaders)), *(one for one in leaders if one in known)]


def _dots(axis: Axes, where: Sequence[float], numbers: Sequence[Number], outcome: Outcome) -> None:
    if not numbers:
        return
    look = _LOOKS[outcome]
    axis.errorbar(
        where,
        [one.value for one in numbers],
        # An interval of a bootstrap need not hold the value itself.
        yerr=[
            [max(0.0, one.value - one.low) for one in numbers],
            [max(0.0, one.high - one.value) for one in numbers],
        ],
        fmt=look["marker"],
        color=look["color"],
        markersize=5,
        elinewidth=1.0,
        alpha=0.85,
    )


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)


def _better(objective: Objective) -> str:
    return f"{objective} ({objective.mode})"


def _position(value: Scalar, law: BaseDistribution) -> float:
    if isinstance(law, CategoricalDistribution):
        return float(law.to_internal_repr(value))
    assert isinstance(value, int | float)
    return float(value)
