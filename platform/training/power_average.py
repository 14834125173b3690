"""Moving averages of any width, made after training from snapshots of two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, final

import numpy as np
import torch
from torch import Tensor

_WIDEST: Final = 0.25
"""Relative width above which the exponent nears that of a plain mean, 0, at about 0.289."""


@final
@dataclass(frozen=True, kw_only=True)
class PowerProfile:
    """The average over a run with weights that grow as a power of the time: w(z) ~ z^exponent.

    It keeps its relative width while training goes on and forgets the initial weights by itself.

    Reference: Karras et al. 2023, arXiv:2312.02696, Eqs. (123) to (127) and section 3.1.

    Attributes:
        exponent: Power of the time, above 0.

    Raises:
        ValueError: If the exponent is not positive.
    """

    exponent: float

    def __post_init__(self) -> None:
        if not self.exponent > 0.0:
            raise ValueError(f"a power profile needs an exponent above 0, got {self.exponent}")

    @classmethod
    def of_width(cls, width: float) -> Self:
        """The profile of a relative width.

        Args:
            width: Standard deviation of the weights over the length of the run, in (0, 0.25].

        Returns:
            The profile.

        Raises:
            ValueError: If the width is out of range.
        """
        if not 0.0 < width <= _WIDEST:
            raise ValueError(
                f"the relative width of an average must lie in (0, {_WIDEST}], got {width}"
            )
        # (g + 2)^2 (g + 3) width^2 = g + 1 has one root above 0.
        inverse = width**-2
        roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
        return cls(exponent=float(roots.real.max()))

    @property
    def width(self) -> float:
        """Standard deviation of the weights over the length of the run."""
        g = self.exponent
        return float(np.sqrt((g + 1.0) / ((g + 2.0) ** 2 * (g + 3.0))))

    def decay(self, step: int) -> float:
        """Share of the average that stays at a step.

        Args:
            step: Number of the step, from 1.

        Returns:
            A number in [0, 1); 0 at the first step.
        """
        return float((1.0 - 1.0 / step) ** (self.exponent + 1.0))


@final
@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What an average was at a moment of the run.

    Attributes:
        profile: Profile of the average.
        step: Step after which it was taken, from 1.
    """

    profile: PowerProfile
    step: int


def coefficients(snapshots: Sequence[Snapshot], wanted: Snapshot) -> list[float]:
    """How to add snapshots up to come as near as can be to an average that was not kept.

    Least squares between the weights in time, of which all products have closed forms.

    Reference: Karras et al. 2023, arXiv:2312.02696, section 3.2 and appendix C.

    Args:
        snapshots: What was kept, at least one; none later than what is wanted helps.
        wanted: What is to be made.

    Returns:
        One factor for each snapshot.

    Raises:
        ValueError: If there are no snapshots.
    """
    if not snapshots:
        raise ValueError("an average is made from one or more snapshots, got none")
    gram = np.array([[_product(a, b) for b in snapshots] for a in snapshots])
    aim = np.array([_product(a, wanted) for a in snapshots])
    return [float(c) for c in np.linalg.lstsq(gram, aim, rcond=None)[0]]


def combine(weights: Sequence[Mapping[str, Tensor]], factors: Sequence[float]) -> dict[str, Tensor]:
    """The sum of weights times factors, added up in float64.

    Args:
        weights: Weights by name, the same names in each.
        factors: One for each.

    Returns:
        Weights in the precision of the first.
    """
    total = {name: torch.zeros_like(part, dtype=torch.float64) for name, part in weights[0].items()}
    for one, factor in zip(weights, factors, strict=True):
        for name, part in one.items():
            total[name] += factor * part.double()
    return {name: part.to(weights[0][name].dtype) for name, part in total.items()}


def _product(a: Snapshot, b: Snapshot) -> float:
    """Integral over time of the product of two weights, each of integral 1, scaled alike."""
    g, h = a.profile.exponent, b.profile.exponent
    first, last = sorted((a.step, b.step))
    # Of the earlier one all of the weights count, of the later one those up to that time.
    rising = h if a.step <= b.step else g
    ratio = (first / last) ** rising
    return (g + 1.0) * (h + 1.0) / (g + h + 1.0) * ratio / last
