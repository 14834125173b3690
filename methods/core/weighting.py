"""Weightings: how much each sample counts in a loss. The weights carry no gradient."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


class AbstractWeighting(ABC):
    """A weight for each sample, from its error and its times."""

    @property
    def weighs_diagonal(self) -> bool:
        """Whether a row with s = t has a finite weight above 0; it has unless a weight says not."""
        return True

    @abstractmethod
    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""


@final
@dataclass(frozen=True, kw_only=True)
class Unweighted(AbstractWeighting):
    """Every sample counts alike."""

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """The errors as they are."""
        del s, t
        return error


@final
@dataclass(frozen=True, kw_only=True)
class AdaptivePower(AbstractWeighting):
    """Each error divided by a power of itself: error / (error + offset)^power.

    Power 0 is squared L2, 0.5 is like pseudo-Huber, 1 is like the logarithm. The error is a sum
    over dimensions, and so is the offset.

    Reference: Geng et al. 2025, arXiv:2505.13447v1, section 4.3.

    Attributes:
        power: In [0, 1].
        offset: Above 0.

    Raises:
        ValueError: If the power or the offset is out of range.
    """

    power: float = 1.0
    offset: float = 0.01

    def __post_init__(self) -> None:
        if not (0.0 <= self.power <= 1.0 and 0.0 < self.offset < math.inf):
            raise ValueError(
                "adaptive weighting needs power in [0, 1] and a finite offset > 0, "
                f"got {self.power} and {self.offset}"
            )

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        del s, t
        return error / (error.detach() + self.offset) ** self.power


@final
@dataclass(frozen=True, kw_only=True)
class DenoiserWeighting(AbstractWeighting):
    """EDM's weight in terms of the velocity: (1 - s)^2 / sigma_data^2 + s^2.

    It gives the raw output of a preconditioned network unit weight at every noise level.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Table 1, translated to velocities.

    Attributes:
        sigma_data: Standard deviation of the data, above 0.

    Raises:
        ValueError: If sigma_data is not positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_data < math.inf:
            raise ValueError(
                f"denoiser weighting needs a finite sigma_data > 0, got {self.sigma_data}"
            )

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        del t
        return error * torch.square((1.0 - s) / self.sigma_data).add(s.square())


@final
@dataclass(frozen=True, kw_only=True)
class TruncatedSnr(AbstractWeighting):
    """The weight max(snr, 1) of errors in the data, in terms of the velocity: max(s^2, (1 - s)^2).

    The signal-to-noise ratio is snr = s^2 / (1 - s)^2 on the linear path, and an error in the data
    is (1 - s) times that of the velocity.

    Reference: Salimans and Ho 2022, arXiv:2202.00512v2, section 4, truncated SNR weighting.
    """

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        del t
        return error * torch.maximum(s, 1.0 - s).square()


def require_weighed_diagonal(weighting: AbstractWeighting) -> None:
    """Refuse a weight that leaves out rows on the diagonal, or has none for them.

    Args:
        weighting: Weight of each sample of a method whose rows may have s = t.

    Raises:
        ValueError: If such a row would count nothing, or without end.
    """
    if not weighting.weighs_diagonal:
        raise ValueError(
            "rows with s = t need a finite weight above 0: choose another method.weighting, power "
            f"0 in it, or times without such rows where a method allows them; got {weighting}"
        )
