"""Laws of two neighbouring times s < t on one trajectory, at which a map to the data must agree.

Consistency methods compare the jumps to the data from both: the pair is (s, t), not the jump.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .flow_map import Domain
from .grid import AbstractGrid, KarrasGrid, UniformGrid
from .record import Moment
from .schedule import Constant, Schedule, require_range
from .time_law import AbstractTimeLaw, LogitNormal
from .times import AbstractTimes, Interval


class AbstractSpacing(ABC):
    """How a grid of any number of steps lies between noise and data."""

    @property
    @abstractmethod
    def t_lo(self) -> float:
        """Its first time; the last is 1."""

    @abstractmethod
    def grid(self, steps: int) -> AbstractGrid:
        """The grid of this many steps."""

    @final
    def knots(self, steps: int) -> tuple[float, ...]:
        """The steps + 1 times from t_lo to 1."""
        return _knots(self, steps)


@lru_cache(maxsize=32)
def _knots(spacing: AbstractSpacing, steps: int) -> tuple[float, ...]:
    return spacing.grid(steps).times(spacing.t_lo, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class UniformSpacing(AbstractSpacing):
    """Equal intervals of time, from t = 0."""

    @property
    def t_lo(self) -> float:
        """Its first time; the last is 1."""
        return 0.0

    def grid(self, steps: int) -> AbstractGrid:
        """The grid of this many steps."""
        return UniformGrid(steps=steps)


@final
@dataclass(frozen=True, kw_only=True)
class KarrasSpacing(AbstractSpacing):
    """Equal intervals of sigma^(1/rho), with sigma = (1 - t) / t the noise level.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Eq. (5).
    Differs from the paper: the last time is the data themselves, in place of sigma_min.

    Attributes:
        sigma_min: Noise level that sets the intervals near the data, above 0.
        sigma_max: Noise level of the first time, above sigma_min.
        rho: How far the steps crowd towards the data, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        self.grid(1)  # refuses values out of range

    @property
    def t_lo(self) -> float:
        """Its first time; the last is 1."""
        return 1.0 / (1.0 + self.sigma_max)

    def grid(self, steps: int) -> AbstractGrid:
        """The grid of this many steps."""
        return KarrasGrid(
            steps=steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho
        )


@final
@dataclass(frozen=True, kw_only=True)
class GridTimes(AbstractTimes):
    """Two neighbours on a grid whose number of steps follows a schedule.

    Reference: Song et al. 2023, arXiv:2303.01469v2, Alg. 2 and 3, intervals alike; Song and
        Dhariwal 2023, arXiv:2310.14189v1, section 3.5, intervals by a log-normal noise level.
    Convention: their noise level is sigma = (1 - t) / t, and their N counts points: steps + 1.

    Attributes:
        spacing: How the grid lies.
        steps: How many intervals, at least 1; the part after the point is dropped.
        law: An interval is chosen by the chance that this law has in it; None for all alike.

    Raises:
        ValueError: If the schedule of steps goes below 1.
    """

    spacing: AbstractSpacing = KarrasSpacing()
    steps: Schedule = Constant(value=17.0)
    law: AbstractTimeLaw | None = None

    def __post_init__(self) -> None:
        require_range("times.steps", self.steps, 1.0, float("inf"))

    @property
    def t_lo(self) -> float:
        """First time of every grid."""
        return self.spacing.t_lo

    @property
    def covers(self) -> Domain | None:
        """None: the jump that is trained leads from either time to the data, not to the other."""
        return None

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        u = now.rng.uniform(n, dtype=torch.float64)
        knots = u.new_tensor(self.spacing.knots(int(self.steps(now))))
        chosen = torch.bucketize(u, self.chances(knots).cumsum(0)[:-1], right=True)
        knots = knots.to(dtype)
        return Interval(
            s=knots[chosen],
            t=knots[chosen + 1],
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )

    def chances(self, knots: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """Chance of each interval between these times."""
        mass = torch.ones_like(knots[1:]) if self.law is None else self.law.cdf(knots).diff()
        return mass / mass.sum()


@final
@dataclass(frozen=True, kw_only=True)
class RatioTimes(AbstractTimes):
    """A noise level, and the same made smaller by a share that shrinks in training.

        sigma_t = max(0, sigma_s (1 - (1 + k sigmoid(-b sigma_s)) / parts))

    While there are few parts, most pairs end at the data.

    Reference: Geng et al. 2024, arXiv:2406.14548v1, section 4, with n(sigma) of their code.
    Convention: their noise level is sigma = (1 - t) / t; parts is q^(a + 1) in their stage a.

    Attributes:
        law: Law of the start time.
        parts: Into how many parts a large noise level is cut, at least 1.
        extra: k, how many parts more a step takes near the data, at least 0.
        sharpness: b, how soon the extra parts end as the noise level grows, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    law: AbstractTimeLaw = LogitNormal(mean=1.1, std=2.0)
    parts: Schedule = Constant(value=256.0)
    extra: float = 8.0
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        require_range("times.parts", self.parts, 1.0, float("inf"))
        if not (0.0 <= self.extra < math.inf and 0.0 < self.sharpness < math.inf):
            raise ValueError(
                "ratio times need finite extra >= 0 and sharpness > 0, "
                f"got {self.extra} and {self.sharpness}"
            )

    @property
    def covers(self) -> Domain | None:
        """None: the jump that is trained leads from either time to the data, not to the other."""
        return None

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        s = self.law.draw(n, now.rng, dtype=torch.float64)
        return Interval(
            s=s.to(dtype),
            t=self.after(s, now).to(dtype),
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )

    def after(self, s: Float[Tensor, " n"], now: Moment) -> Float[Tensor, " n"]:
        """The later time of the pair that begins at s."""
        # By the ratio, since the levels themselves have no end where s is nearly 0.
        return s / (s + (1.0 - s) * self.ratio((1.0 - s) / s, now))

    def ratio(self, sigma: Float[Tensor, " n"], now: Moment) -> Float[Tensor, " n"]:
        """Noise level at t over that at s, in [0, 1)."""
        steps = 1.0 + self.extra * torch.sigmoid(-self.sharpness * sigma)
        return (1.0 - steps / self.parts(now)).clamp(min=0.0)
