"""Post-hoc settings: what a sweep tries on the weights of each trial, without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, final

from ..platform.evaluation.latency import LEAST_REPEATS
from ..platform.settings import settings
from .sampler import SamplerKind
from .space import Space

_KEY: Final = "sweep.posthoc"
_KINDS: Final = (
    SamplerKind.QMC,
    SamplerKind.RANDOM,
    SamplerKind.GRID,
    SamplerKind.TPE,
    SamplerKind.GP,
)
"""Those that make sense of a handful of points."""


@final
@dataclass(frozen=True, kw_only=True)
class PostHoc:
    """What is tried on the weights of each trial when it has been trained.

    Attributes:
        space: Keys that need no training, with their values.
        base: Overrides of samplers that all points share, such as ``sampler=renoise``.
        trials: Points that are tried beside the trial as it was trained.
        sampler: Who suggests them: qmc, random, grid, tpe or gp.
        startup: Random points before tpe or gp learn from the others.

    Raises:
        ValueError: If a setting is out of range.
    """

    space: Space
    base: tuple[str, ...] = ()
    trials: int = 8
    sampler: SamplerKind = SamplerKind.QMC
    startup: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", tuple(self.base))
        if self.sampler not in _KINDS:
            raise ValueError(
                f"{_KEY}.sampler must be one of {', '.join(_KINDS)}, got {self.sampler!r}"
            )
        object.__setattr__(self, "sampler", SamplerKind(self.sampler))
        for name in ("trials", "startup"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{_KEY}.{name} must be at least 1, got {value}")
        if self.space.schedules:
            raise ValueError(
                f"{_KEY}.space cannot hold schedules, which are over when a trial has been "
                f"trained, got {next(iter(self.space.schedules))}"
            )

    @classmethod
    def from_dict(cls, values: object) -> Self | None:
        """The settings that plain values describe; None where there are none.

        Args:
            values: As ``to_dict`` gives them, or as Hydra composes them.

        Raises:
            ValueError: If a key is unknown or missing, or a value of another type or out of range.
        """
        if values is None:
            return None
        if not isinstance(values, Mapping) or "space" not in values:
            raise ValueError(f"{_KEY} must be null or settings with a space, got {values!r}")
        try:
            space = Space.from_dict(values["space"])
        except ValueError as error:  # a space calls itself by the place of the first one
            raise ValueError(str(error).replace("sweep.space", f"{_KEY}.space")) from error
        return settings(cls, _KEY, {**values, "space": space})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes equal settings."""
        return {
            "space": self.space.to_dict(),
            "base": list(self.base),
            "trials": self.trials,
            "sampler": str(self.sampler),
            "startup": self.startup,
        }


@final
@dataclass(frozen=True, kw_only=True)
class Timing:
    """How the latency of trials is measured, where they were trained and with their threads.

    Attributes:
        batch_size: Samples of a batch.
        repeats: Batches that are timed, at least 6; 0 for no latency.

    Raises:
        ValueError: If a count is out of range.
    """

    batch_size: int = 1
    repeats: int = 20

    def __post_init__(self) -> None:
        if self.batch_size < 1 or 0 < self.repeats < LEAST_REPEATS or self.repeats < 0:
            raise ValueError(
                f"sweep.latency.batch_size must be at least 1 and repeats 0 or at least "
                f"{LEAST_REPEATS}, got {self.batch_size} and {self.repeats}"
            )
