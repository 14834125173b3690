"""Curricula: the schedules of trials, drawn over the run."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from ..methods.core.record import Moment
from ..methods.core.rng import Rng
from ..platform.evaluation.figures import COLOURS, INK, style
from ..platform.training.assembly import Assembly, parts_of
from .clocks import schedules_of
from .record import TrialRecord
from .trial import experiment_of

_POINTS: Final = 400
Curve = tuple[np.ndarray, np.ndarray]
"""Shares of the run, rising, and the values of a schedule there."""


def curves_of(assembly: Assembly) -> dict[str, Curve]:
    """The schedules of an experiment, with its changes, from its first step to its last.

    Args:
        assembly: The experiment, built.

    Returns:
        A curve for each schedule, by its dotted path.
    """
    training = assembly.experiment.training
    steps = np.unique(np.linspace(0, training.steps, _POINTS).round().astype(int))
    rng = Rng.seeded(0)
    moments = [
        Moment(step=int(step), total=training.steps, rng=rng, batch_size=training.batch_size)
        for step in steps
    ]
    held = {since: schedules_of(assembly.at(since)) for since in (0, *assembly.experiment.turns)}
    standing = [held[max(since for since in held if since <= now.step)] for now in moments]
    return {
        path: (
            steps / training.steps,
            np.array([at[path](now) for at, now in zip(standing, moments, strict=True)]),
        )
        for path in held[0]
        if all(path in schedules for schedules in held.values())
    }


def worth_showing(trials: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """The schedules that move in a trial, or differ between trials.

    Args:
        trials: Curves by path, of each trial by its name.

    Returns:
        Curves by trial, of each such schedule by its path.
    """
    paths = dict.fromkeys(path for curves in trials.values() for path in curves)
    found = {}
    for path in paths:
        having = {name: curves[path] for name, curves in trials.items() if path in curves}
        values = np.concatenate([values for _, values in having.values()])
        if np.ptp(values) > 0.0:
            found[path] = having
    return found


def figures_of(trials: Sequence[TrialRecord]) -> dict[str, Figure]:
    """The schedules of some trials over the run.

    Args:
        trials: The trials.

    Returns:
        A figure by the path of each schedule that moves or differs.

    Raises:
        ValueError: If the overrides of a trial make nothing any more.
    """
    shown = worth_showing(
        {f"trial {one.number}": curves_of(parts_of(experiment_of(one.overrides))) for one in trials}
    )
    colours = {f"trial {one.number}": colour for one, colour in zip(trials, COLOURS, strict=False)}
    return {path: _figure(path, curves, colours) for path, curves in shown.items()}


def _figure(path: str, curves: Mapping[str, Curve], colours: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(4.6, 2.6), layout="constrained")
    axis = figure.subplots()
    style(axis)
    for name, (share, values) in curves.items():
        # Schedules that coincide stay visible beside each other.
        axis.plot(share, values, color=colours[name], lw=1.8, alpha=0.8, label=name)
    axis.set_title(path, fontsize=9, color=INK, loc="left")
    axis.set_xlim(0.0, 1.0)
    axis.set_xlabel("share of the run", fontsize=8.5, color=INK)
    axis.legend(frameon=False, fontsize=8)
    return figure
