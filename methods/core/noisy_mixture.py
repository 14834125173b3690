"""A law of times with two halves: where denoising teaches best, and where generation begins."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .rng import Rng
from .time_law import AbstractTimeLaw, LogitNormal


@final
@dataclass(frozen=True, kw_only=True)
class NoisyMixture(AbstractTimeLaw):
    """Half of the times have a normal logit, half lie in the noisy part of Karras's coordinate.

    In the second half sigma^(1/rho) is uniform, with sigma = (1 - t) / t the noise level, from that
    of sigma_max to where a share of the way to that of sigma_min is done.

    Reference: the denoising term of Kim et al. 2023 (CTM), arXiv:2310.02279v3, after their code.

    Attributes:
        mean: Mean of the logit in the first half.
        std: Standard deviation of the logit, above 0.
        noisy: Share of the coordinate that the second half takes, in (0, 1].
        sigma_min: Noise level at the end of the coordinate, above 0.
        sigma_max: Noise level at its start, above sigma_min.
        rho: How far the coordinate crowds towards the data, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    mean: float = 1.2
    std: float = 1.2
    noisy: float = 0.7
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        is_ordered = 0.0 < self.sigma_min < self.sigma_max < math.inf
        is_shaped = 0.0 < self.std < math.inf and 0.0 < self.rho < math.inf
        if not (0.0 < self.noisy <= 1.0 and is_ordered and is_shaped and math.isfinite(self.mean)):
            raise ValueError(
                "noisy mixture needs a finite mean, std > 0, noisy in (0, 1], 0 < sigma_min < "
                f"sigma_max and rho > 0, all finite, got {self.mean}, {self.std}, {self.noisy}, "
                f"{self.sigma_min}, {self.sigma_max} and {self.rho}"
            )

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""
        plain = self._plain.draw(n, rng, dtype=dtype)
        high, length = self._ends()
        root = high - self.noisy * length * rng.uniform(n, dtype=dtype)
        noisy = 1.0 / (1.0 + root**self.rho)
        return torch.where(rng.uniform(n) < 0.5, plain, noisy)

    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""
        high, length = self._ends()
        root = ((1.0 - t) / t) ** (1.0 / self.rho)
        noisy = ((high - root) / (self.noisy * length)).clamp(0.0, 1.0)
        return 0.5 * (self._plain.cdf(t) + noisy)

    @property
    def _plain(self) -> LogitNormal:
        return LogitNormal(mean=self.mean, std=self.std)

    def _ends(self) -> tuple[float, float]:
        """The coordinate at its start, and its length."""
        high, low = (sigma ** (1.0 / self.rho) for sigma in (self.sigma_max, self.sigma_min))
        return high, high - low
