"""A law of times that stays near one noise level and has a long tail towards pure noise."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .rng import Rng
from .time_law import AbstractTimeLaw


@final
@dataclass(frozen=True, kw_only=True)
class LogTail(AbstractTimeLaw):
    """The logarithm l of the noise level has density 1 / sqrt(l^2 + core^2) between two times.

    Reference: Lee et al. 2024, arXiv:2410.14895v1, section 3, and their code: Student's t with 0.01
        degrees of freedom and scale 0.2, cut off.
    Convention: their noise level is sigma = (1 - t) / t.
    Differs from the paper: this is the limit of no degrees of freedom at the same core of
        0.2 sqrt(0.01): the power of the density is 1 in place of 1.01, and it has a closed form.

    Attributes:
        t_lo: First time, in (0, t_hi): noise level 80.
        t_hi: Last time, in (t_lo, 1): noise level 1.
        core: Width in l around noise level 1 where the density is flat, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    t_lo: float = 1.0 / 81.0
    t_hi: float = 0.5
    core: float = 0.02

    def __post_init__(self) -> None:
        if not (0.0 < self.t_lo < self.t_hi < 1.0 and 0.0 < self.core < math.inf):
            raise ValueError(
                "log-tail times need 0 < t_lo < t_hi < 1 and a finite core > 0, "
                f"got {self.t_lo}, {self.t_hi} and {self.core}"
            )

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""
        near, far = self._ends()
        level = near + (far - near) * rng.uniform(n, dtype=dtype)
        return torch.sigmoid(-self.core * torch.sinh(level)).clamp(self.t_lo, self.t_hi)

    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""
        near, far = self._ends()
        level = torch.asinh(-torch.logit(t.clamp(self.t_lo, self.t_hi)) / self.core)
        return (far - level) / (far - near)

    def _ends(self) -> tuple[float, float]:
        near, far = (
            math.asinh(math.log((1.0 - t) / t) / self.core) for t in (self.t_hi, self.t_lo)
        )
        return near, far
