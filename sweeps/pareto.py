"""The Pareto set of a sweep: all ways to use all trials, by quality, evaluations, cost and time."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, log10
from typing import Final, final

import moocore
import numpy as np

from ..platform.evaluation.report import Report
from .ancestry import line_of_descent
from .bench import ways_of
from .cost import Cost
from .findings import Findings
from .objective import Number, Objectives
from .posthoc_setting import AS_TRAINED
from .record import COSTS, Outcome, TrialRecord
from .subtrial import Way

_DIGITS: Final = 2
"""Digits to which times count: a clock that goes a hair faster makes no better model."""


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """One way to use one trial, at one number of network evaluations.

    Attributes:
        trial: Number of the trial.
        place: Number of the sub-trial; 0 as it was trained.
        said: The setting in words.
        nfe: Network evaluations of a sample.
        quality: The first objective of quality, on the data that trials are judged by.
        training_s: Seconds of processor time of the training: of a member of a population with
            its ancestors, and of a rung that is a run of its own without those below.
        latency: Milliseconds for a sample; None where it was not measured.
    """

    trial: int
    place: int
    said: str
    nfe: int
    quality: Number
    training_s: float
    latency: Number | None


def points_of(findings: Findings) -> list[Point]:
    """All that was measured of whole trainings: each is a curve over evaluations.

    Args:
        findings: What is known of the sweep.
    """
    points: list[Point] = []
    last = findings.settings.generations - 1
    for trial in findings.ended:
        is_part = trial.lineage is not None and trial.lineage.generation < last
        if trial.outcome is not Outcome.FINISHED or is_part:
            continue
        training_s = _training_s(trial, findings)
        ways = {
            (trial.chosen, way.nfe): (trial.said or AS_TRAINED, way)
            for way in _ways(findings.report(trial), findings.objectives)
        }
        for way in _ways(findings.report_as_trained(trial), findings.objectives):
            ways.setdefault((0, way.nfe), (AS_TRAINED, way))
        for one in findings.subtrials(trial):
            for way in one.ways:
                ways.setdefault((one.place, way.nfe), (one.said, way))
        points += [
            Point(
                trial=trial.number,
                place=place,
                said=said,
                nfe=way.nfe,
                quality=way.quality,
                training_s=training_s,
                latency=way.latency,
            )
            for (place, _), (said, way) in ways.items()
        ]
    return points


def pareto_set(points: Sequence[Point], *, sign: float) -> list[Point]:
    """The points that no other one beats, from the best quality on.

    One beats another if it is at least as good in quality, evaluations, cost of the training and
    latency, and better in one of them. Times count to two digits; latency counts if all points have
    it.

    Args:
        points: The points.
        sign: What makes smaller values of quality the better ones.
    """
    if not points:
        return []
    is_timed = all(one.latency is not None for one in points)
    rows = [
        [
            sign * one.quality.value,
            float(one.nfe),
            rounded(one.training_s),
            rounded(one.latency.value) if is_timed and one.latency is not None else 0.0,
        ]
        for one in points
    ]
    is_best = moocore.is_nondominated(np.array(rows), keep_weakly=True)
    best = [one for one, is_in in zip(points, is_best, strict=True) if is_in]
    return sorted(best, key=lambda one: (sign * one.quality.value, one.nfe, one.trial, one.place))


def rounded(seconds: float) -> float:
    """A time to two digits."""
    digits = _DIGITS - 1 - floor(log10(seconds)) if 0.0 < seconds < inf else 0
    return round(seconds, digits)


def _ways(report: Report | None, objectives: Objectives) -> Sequence[Way]:
    return () if report is None else ways_of(report, objectives)


def _training_s(trial: TrialRecord, findings: Findings) -> float:
    """Seconds of processor time of the training that made the weights of a trial."""
    if trial.lineage is not None:
        line = line_of_descent(trial, findings.ended)
        return sum(one.cost.training_s for one in line)
    if trial.rung is None:
        return trial.cost.training_s
    (notes,) = (one.user_attrs for one in findings.trials if one.number == trial.number)
    return Cost(**notes[COSTS][str(trial.rung)]).training_s
