"""Weightings by the noise level sigma = (1 - t) / t, for errors between data on the linear path."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .weighting import AbstractWeighting


@final
@dataclass(frozen=True, kw_only=True)
class InverseGap(AbstractWeighting):
    """One over a power of the gap between two noise levels: (sigma_s - sigma_t)^-power.

    The gap is (t - s) / (s t). It is for pairs of times at which one jump to the data is compared
    with another: a row on the diagonal, whose gap is none, has no weight unless the power is 0.

    Reference: Song and Dhariwal 2023, arXiv:2310.14189v1, section 3.2, power 1; Lee et al.
        2024, arXiv:2410.14895v1, power 1/2 as an option of their code.

    Attributes:
        power: In [0, 1]; 0 is no weight.

    Raises:
        ValueError: If the power is out of range.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.power <= 1.0:
            raise ValueError(f"inverse gap weighting needs a power in [0, 1], got {self.power}")

    @property
    def weighs_diagonal(self) -> bool:
        """Only with power 0."""
        return self.power == 0.0

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        # A pair of times that rounding has made equal has no error, and must not make it 0 / 0.
        gap = (t - s).clamp(min=torch.finfo(s.dtype).eps)
        return error * (s * t / gap) ** self.power


@final
@dataclass(frozen=True, kw_only=True)
class DataWeighting(AbstractWeighting):
    """EDM's weight of an error between data: ((sigma^2 + sigma_data^2) / (sigma sigma_data)^2).

    With power 1 it gives the raw output of a preconditioned network unit weight. It is
    1 / sigma_data^2 at noise and infinite at data, where two jumps to the data agree but a velocity
    has an error: a row on the diagonal has no finite weight unless the power is 0.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Table 1; as a weight of consistency in the
        ImageNet recipe of Geng et al. 2024, arXiv:2406.14548v1.

    Attributes:
        sigma_data: Standard deviation of the data, above 0.
        power: In [0, 1]; 1 for squared errors, 1/2 for unsquared ones.

    Raises:
        ValueError: If a value is out of range.
    """

    sigma_data: float = 0.5
    power: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 < self.sigma_data < math.inf and 0.0 <= self.power <= 1.0):
            raise ValueError(
                "data weighting needs a finite sigma_data > 0 and power in [0, 1], "
                f"got {self.sigma_data} and {self.power}"
            )

    @property
    def weighs_diagonal(self) -> bool:
        """Only with power 0."""
        return self.power == 0.0

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        del t
        weight = (s / (1.0 - s)).square() + self.sigma_data**-2
        return error * weight**self.power


def require_weight_at(t_lo: float, weighting: AbstractWeighting) -> None:
    """Refuse a weight that leaves out pure noise where a grid of times begins there.

    Args:
        t_lo: First time of the grid.
        weighting: The weight.

    Raises:
        ValueError: If pure noise, from which samples are made, would never be trained.
    """
    if t_lo == 0.0 and isinstance(weighting, InverseGap) and weighting.power > 0.0:
        raise ValueError(
            "inverse gap weighting is 0 at pure noise: times must begin above t = 0, got 0"
        )
