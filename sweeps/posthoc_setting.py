"""One post-hoc setting: a way to use weights that have been trained."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, final

from ..methods.core.sampler import AbstractSampler
from ..platform.evaluation.named_sampler import (
    SAMPLER,
    is_of_sampler,
    named_sampler,
    sampler_node,
)
from .condition import Scalar
from .posthoc import PostHoc
from .record import TrialRecord
from .space import override

WIDTH: Final = "ema.width"
INNER: Final = "sampler.grid.inner"
OF_TRAIN: Final = ("evaluation.guidance", "training.ema_served")
"""Keys of ``onestep train`` that decide nothing of a training."""
_LONG: Final = re.compile(r"\d+\.\d{4,}(e-\d+)?")
AS_TRAINED: Final = "as trained"


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to use weights that have been trained; as it is made, the way of the training.

    Attributes:
        width: Relative width of the moving average that is used; None for the one that is served.
        train: Overrides of ``onestep train`` that decide nothing of the training.
        sampler: Overrides of ``onestep sample`` that name a sampler.
    """

    width: float | None = None
    train: tuple[str, ...] = ()
    sampler: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Scalar], base: Sequence[str] = ()) -> Self:
        """The setting at a point of a post-hoc space; a sampler that is null leaves the domain's.

        Args:
            values: Values by key.
            base: Overrides of samplers that all points share.

        Returns:
            The setting.

        Raises:
            ValueError: If the sampler is null and something of it is set.
        """
        width = values.get(WIDTH)
        if SAMPLER in values and values[SAMPLER] is None:
            idle = [key for key in values if key != SAMPLER and is_of_sampler(key)]
            if idle or base:
                raise ValueError(
                    f"{[*idle, *base][0]} has no effect where sampler is null: give it a when, or "
                    "name a sampler in its place"
                )
            values = {key: value for key, value in values.items() if key != SAMPLER}
        given = [override(key, value) for key, value in values.items() if is_sampler_key(key)]
        times = [repr(value) for key, value in values.items() if is_mid_time(key)]
        if times:
            given.append(f"{INNER}=[{','.join(times)}]")
        return cls(
            width=None if width is None else float(width),
            train=tuple(override(key, values[key]) for key in OF_TRAIN if key in values),
            sampler=(*base, *given),
        )

    @property
    def node(self) -> Mapping[str, Any] | None:
        """Node of the sampler that it names, or None."""
        return sampler_node(self.sampler)

    @property
    def named(self) -> AbstractSampler | None:
        """The sampler that it names, or None."""
        return named_sampler(self.sampler)

    def __str__(self) -> str:
        width = [] if self.width is None else [f"{WIDTH}={self.width}"]
        text = " ".join([*width, *self.train, *self.sampler]) or AS_TRAINED
        return _LONG.sub(lambda found: f"{float(found[0]):.4g}", text)


def setting_of(trial: TrialRecord, posthoc: PostHoc | None) -> Setting:
    """The setting that a trial is judged in.

    Args:
        trial: The trial.
        posthoc: What is tried on the weights of each trial, or None.
    """
    if posthoc is None or not trial.chosen:
        return Setting()
    return Setting.of(trial.posthoc, posthoc.base)


def is_mid_time(key: str) -> bool:
    """Whether a key is a time at which a sampler stops on its way.

    The one time is ``sampler.grid.inner``; of several, the first is ``sampler.grid.inner.1``.
    """
    return key == INNER or (key.startswith(f"{INNER}.") and key[len(INNER) + 1 :].isdecimal())


def is_sampler_key(key: str) -> bool:
    """Whether a key is the left side of an override that names a sampler."""
    return is_of_sampler(key) and not is_mid_time(key)
