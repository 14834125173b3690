"""Objectives: the numbers that a sweep improves."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self, final

from ..platform.data.source import is_image
from ..platform.evaluation.benchmark import METRICS
from ..platform.evaluation.latency import LATENCY
from ..platform.evaluation.report import Report
from ..platform.evaluation.trajectory import SEMIGROUP_ERROR, STRAIGHTNESS
from ..platform.settings import settings

TRAINING_S: Final = "cost/training_s"
"""Seconds of processor time of the training."""
COSTS: Final = (TRAINING_S,)
"""Numbers that are not of the evaluation, and have no interval."""
AUTO: Final = "auto"
OF_IMAGES: Final = "eval/frechet_features"
"""It falls from noise over a Gaussian per class to the data, and as a model learns. The deviation
of nearest neighbours tells good models better apart, but rises again meanwhile."""
OF_POINTS: Final = "eval/w2"
"""Features of points are their coordinates, in which one Gaussian may be as good as many modes."""
_LABEL: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,59}", re.ASCII)
LARGER: Final = frozenset(
    f"eval/{name}" for name in ("precision", "recall", "coverage", "class_agreement")
)
"""Numbers of which larger values are better."""
BETWEEN: Final = frozenset(
    f"eval/{name}"
    for name in (
        "density",
        "1nn_accuracy",
        "1nn_samples",
        "1nn_data",
        "memorisation_ratio",
        "memorisation_rank",
        "mode_std_ratio_min",
        "mode_std_ratio_max",
    )
)
"""Numbers of which data have one that is neither the least nor the largest."""
OF_THE_MAP: Final = (STRAIGHTNESS, SEMIGROUP_ERROR)
"""Numbers that no samples are drawn for."""
_OF_SAMPLES: Final = tuple(name for metric in METRICS for name in metric.names)
_KNOWN: Final = (AUTO, *_OF_SAMPLES, *OF_THE_MAP, LATENCY, *COSTS)
"""All names; whether the data have such a number is known later, when they are."""


class Mode(StrEnum):
    """Which values of a number are better."""

    MIN = "min"
    MAX = "max"
    AUTO = "auto"
    """Those that are better in the number of that name; no objective that is made has it."""


@final
@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured number.

    Attributes:
        value: The number.
        low: Lower end of its interval at 95 %.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


@final
@dataclass(frozen=True, kw_only=True)
class Objective:
    """A number that a sweep improves.

    Attributes:
        name: Metric of the evaluation, ``family/name``, ``latency/sample_ms``,
            ``cost/training_s``, or ``auto`` for the quality that suits the data.
        nfe: Network evaluations at which it is taken; None for a property of the map itself and
            for a cost.
        mode: Which values are better; ``auto`` for those that are in the number of that name.

    Raises:
        ValueError: If the mode is none, or ``auto`` for a number that is best between its ends, the
            name that of no number, or a number of evaluations is given where there is none, or
            missing.
    """

    name: str
    nfe: int | None = None
    mode: Mode = Mode.AUTO

    def __post_init__(self) -> None:
        if self.mode not in list(Mode):
            raise ValueError(
                f"sweep.objectives: mode must be {', '.join(Mode)}, "
                f"got {self.mode!r} for {self.name}"
            )
        if self.mode == Mode.AUTO and self.name in BETWEEN:
            raise ValueError(
                f"sweep.objectives: {self.name} of data is neither the least nor the largest: its "
                "mode must be min or max, got auto"
            )
        better = Mode.MAX if self.name in LARGER else Mode.MIN
        object.__setattr__(self, "mode", better if self.mode == Mode.AUTO else Mode(self.mode))
        without = (*COSTS, *OF_THE_MAP)
        if self.nfe is None and self.name not in _KNOWN:
            raise ValueError(
                f"sweep.objectives: name must be one of {', '.join(_KNOWN)}, got {self.name!r}"
            )
        if (self.nfe is None) is not (self.name in without):
            raise ValueError(
                f"sweep.objectives: nfe must be null for {', '.join(without)} and a number for all "
                f"others, got {self.nfe} for {self.name}"
            )
        if self.nfe is not None and self.nfe < 1:
            raise ValueError(
                f"sweep.objectives: nfe must be at least 1, got {self.nfe} for {self.name}"
            )

    @property
    def sign(self) -> float:
        """What makes smaller values the better ones."""
        return 1.0 if self.mode is Mode.MIN else -1.0

    def of(self, report: Report, *, training_s: float) -> Number:
        """The number of a trial.

        Args:
            report: Its measurements.
            training_s: Seconds of processor time of its training.

        Returns:
            The number with its interval.

        Raises:
            ValueError: If the report does not have it.
        """
        if self.name == TRAINING_S:
            return Number(value=training_s, low=training_s, high=training_s)
        found = report.find(self.name, nfe=self.nfe)
        low, high = found.interval
        return Number(value=found.value, low=low, high=high)

    def __str__(self) -> str:
        return self.name if self.nfe is None else f"{self.name} at {self.nfe} NFE"


@final
@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The numbers that a sweep improves, by what they are called.

    Attributes:
        by_label: The numbers; the first one leads where one has to.

    Raises:
        ValueError: If there is none, one is there twice, or a label is none.
    """

    by_label: Mapping[str, Objective]

    def __post_init__(self) -> None:
        if not self.by_label:
            raise ValueError("sweep.objectives needs at least one number, got none")
        for label in self.by_label:
            if not _LABEL.fullmatch(label):
                raise ValueError(
                    "sweep.objectives: a label is letters, digits, '_', '.' or '-', at most 60, "
                    f"got {label!r}"
                )
        if len(set(self.all)) < len(self.all):
            raise ValueError(f"sweep.objectives must be different numbers, got {self}")

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The objectives that plain values describe.

        Args:
            values: ``name``, ``nfe`` and ``mode`` by label.

        Raises:
            ValueError: If there are no values by label, or those of a label are refused.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"sweep.objectives must be numbers by label, got {values!r}")
        return cls(
            by_label={
                str(label): settings(Objective, f"sweep.objectives.{label}", node)
                for label, node in values.items()
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes equal objectives."""
        return {
            label: {"name": one.name, "nfe": one.nfe, "mode": str(one.mode)}
            for label, one in self.by_label.items()
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(self.by_label)

    @property
    def all(self) -> tuple[Objective, ...]:
        """The numbers in order."""
        return tuple(self.by_label.values())

    @property
    def lead(self) -> Objective:
        """The first one."""
        return self.all[0]

    @property
    def quality(self) -> Objective | None:
        """The first one that is measured on samples, and is no time; None if there is none."""
        found = (one for one in self.all if one.nfe is not None and one.name != LATENCY)
        return next(found, None)

    @property
    def names(self) -> frozenset[str]:
        """What a report calls them."""
        return frozenset(one.name for one in self.all)

    @property
    def nfes(self) -> tuple[int, ...]:
        """Numbers of evaluations that they are taken at, ascending."""
        return tuple(sorted({one.nfe for one in self.all if one.nfe is not None}))

    def on(self, shape: Sequence[int]) -> Self:
        """The objectives where no name is left to the data.

        Args:
            shape: Shape of a datum.
        """
        name = OF_IMAGES if is_image(shape) else OF_POINTS
        named = {
            label: replace(one, name=name) if one.name == AUTO else one
            for label, one in self.by_label.items()
        }
        return type(self)(by_label=named)

    def smaller_is_better(self, numbers: Sequence[Number]) -> tuple[float, ...]:
        """The values of a trial's numbers, turned so that smaller ones are better."""
        return tuple(one.sign * each.value for one, each in zip(self.all, numbers, strict=True))

    def of(self, report: Report, *, training_s: float) -> tuple[Number, ...]:
        """The numbers of a trial, in order.

        Args:
            report: Its measurements.
            training_s: Seconds of processor time of its training.
        """
        return tuple(one.of(report, training_s=training_s) for one in self.all)

    def __str__(self) -> str:
        return ", ".join(map(str, self.all))


def not_finite(numbers: Sequence[Number]) -> str:
    """What is no number among objectives and the ends of their intervals, or nothing."""
    for one in numbers:
        if not math.isfinite(one.value):
            return f"an objective is {one.value}"
        if not (math.isfinite(one.low) and math.isfinite(one.high)):
            return f"an objective is {one.value:.4g}, but its interval is {one.low} to {one.high}"
    return ""
