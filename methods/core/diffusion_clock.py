"""Clocks of variance-preserving diffusions: the time that they count, and the noise it means.

All of these diffusions go through the same states, the linear path's times a number:

    z = a x1 + g x0 = (a + g) x   with a^2 + g^2 = 1, t = a / (a + g), g / a = (1 - t) / t = sigma

They differ in their clock alone: how fast sigma falls, and so how often training sees each level.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .count import require_whole
from .rng import Rng

_LEAST_TIME: Final = 1e-6
"""Before all first times; at 0 the noise level is infinite."""


class AbstractDiffusionClock(ABC):
    """A diffusion's own time tau in [0, 1], which runs from data to noise."""

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """Its readings nearest to the data and nearest to the noise."""

    @abstractmethod
    def level(self, tau: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Noise level sigma at readings between the ends."""

    @abstractmethod
    def reading(self, level: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Readings at noise levels; beyond an end's level, a reading beyond that end."""

    @abstractmethod
    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent readings, each as likely as the others, shard by shard."""

    @final
    def time(self, tau: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Times on the linear path at readings between the ends."""
        return 1.0 / (1.0 + self.level(tau))

    @final
    def tau(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Readings at times on the linear path; times outside the range are read as its ends."""
        positive = t.clamp(min=_LEAST_TIME)
        return self.reading((1.0 - positive) / positive).clamp(*self.ends)

    @property
    @final
    def t_lo(self) -> float:
        """First time of the range, above 0."""
        return self._time_at(self.ends[1])

    @property
    @final
    def t_hi(self) -> float:
        """Last time of the range."""
        return self._time_at(self.ends[0])

    @final
    def _time_at(self, tau: float) -> float:
        return self.time(torch.tensor(tau, dtype=torch.float64, device="cpu")).item()


@final
@dataclass(frozen=True, kw_only=True)
class LinearRateClock(AbstractDiffusionClock):
    """The rate of noise rises linearly: the VP SDE, which is DDPM's schedule in continuous time.

        1 + sigma^2 = exp(tau beta_min + tau^2 (beta_max - beta_min) / 2)

    Reference: Song et al. 2021, arXiv:2011.13456v2, Eq. (32).

    Attributes:
        beta_min: Rate at the data, above 0.
        beta_max: Rate at the noise, above beta_min.
        tau_min: Reading nearest to the data, in [0, 1); 0 for the data themselves.

    Raises:
        ValueError: If the rates are out of order or the reading is out of range.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    tau_min: float = 1e-5

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min < self.beta_max < math.inf:
            raise ValueError(
                "linear rate clock needs finite 0 < beta_min < beta_max, "
                f"got {self.beta_min} and {self.beta_max}"
            )
        if not 0.0 <= self.tau_min < 1.0:
            raise ValueError(f"linear rate clock needs tau_min in [0, 1), got {self.tau_min}")

    @property
    def ends(self) -> tuple[float, float]:
        """Its readings nearest to the data and nearest to the noise."""
        return (self.tau_min, 1.0)

    def level(self, tau: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Noise level sigma at readings between the ends."""
        span = self.beta_max - self.beta_min
        return torch.expm1(tau * (self.beta_min + 0.5 * span * tau)).sqrt()

    def reading(self, level: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Readings at noise levels; beyond an end's level, a reading beyond that end."""
        exponent = torch.log1p(level.square())
        root = (self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * exponent).sqrt()
        # The other form of the root of the quadratic cancels near the data.
        return 2.0 * exponent / (self.beta_min + root)

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent readings, each as likely as the others, shard by shard."""
        return _uniform(self.ends, n, rng, dtype)


@final
@dataclass(frozen=True, kw_only=True)
class CosineClock(AbstractDiffusionClock):
    """The share of data falls like a cosine, slowly at both ends.

        a = cos(phi(tau)) / cos(phi(0)),   phi(tau) = pi / 2 (tau + offset) / (1 + offset)

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672v1, section 3.2.
    Differs from the paper: continuous, and cut off before the noise, where theirs limits each
        step's rate.

    Attributes:
        offset: How far the clock is from the slowest point at the data, above 0.
        tau_max: Reading nearest to the noise, in (0, 1); at 1 no data are left.

    Raises:
        ValueError: If a value is out of range.
    """

    offset: float = 0.008
    tau_max: float = 0.99

    def __post_init__(self) -> None:
        if not (0.0 < self.offset < math.inf and 0.0 < self.tau_max < 1.0):
            raise ValueError(
                "cosine clock needs a finite offset above 0 and tau_max in (0, 1), "
                f"got {self.offset} and {self.tau_max}"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """Its readings nearest to the data and nearest to the noise."""
        return (0.0, self.tau_max)

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1.0 + self.offset)

    def level(self, tau: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Noise level sigma at readings between the ends."""
        first = self._rate * self.offset
        phi = first + self._rate * tau
        # sin^2(phi) - sin^2(first), without the difference.
        noise = torch.sin(self._rate * tau) * torch.sin(phi + first)
        return noise.sqrt() / torch.cos(phi)

    def reading(self, level: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Readings at noise levels; beyond an end's level, a reading beyond that end."""
        first = self._rate * self.offset
        noise = (level.square() + math.sin(first) ** 2).sqrt()
        return torch.atan(noise / math.cos(first)) / self._rate - self.offset

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent readings, each as likely as the others, shard by shard."""
        return _uniform(self.ends, n, rng, dtype)


@dataclass(frozen=True, kw_only=True)
class AbstractDiscreteClock(AbstractDiffusionClock):
    """A finite number of levels, given by the rate of noise of each.

        a_k^2 = (1 - beta_1) ... (1 - beta_k),   tau = k / levels, k = 1, ..., levels

    Only these readings are drawn. Between them ln sigma is linear.

    Attributes:
        levels: How many, at least 2.

    Raises:
        ValueError: If there are fewer, or no whole number.
    """

    levels: int = 1000

    def __post_init__(self) -> None:
        require_whole("levels of a discrete clock", self.levels)
        if self.levels < 2:
            raise ValueError(f"discrete clock needs at least 2 levels, got {self.levels}")

    @property
    @abstractmethod
    def rates(self) -> Float[Tensor, " levels"]:
        """Rate of each level in double precision."""

    @property
    @final
    def ends(self) -> tuple[float, float]:
        """Its readings nearest to the data and nearest to the noise."""
        return (1.0 / self.levels, 1.0)

    @final
    def level(self, tau: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Noise level sigma at readings between the ends."""
        table = _log_levels(self, tau.device)
        place = tau.double() * self.levels - 1.0
        below = place.floor().clamp(0, self.levels - 2).long()
        share = place - below
        log = table[below] * (1.0 - share) + table[below + 1] * share
        return log.exp().to(tau.dtype)

    @final
    def reading(self, level: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Readings at noise levels; beyond an end's level, a reading beyond that end."""
        table = _log_levels(self, level.device)
        log = level.double().log()
        below = (torch.searchsorted(table, log.contiguous()) - 1).clamp(0, self.levels - 2)
        share = (log - table[below]) / (table[below + 1] - table[below])
        return ((below + share + 1.0) / self.levels).to(level.dtype)

    @final
    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent readings, each as likely as the others, shard by shard."""
        return (rng.integers(n, below=self.levels) + 1).to(dtype) / self.levels


@final
@dataclass(frozen=True, kw_only=True)
class DiscreteClock(AbstractDiscreteClock):
    """A finite number of levels, whose rates of noise rise linearly: DDPM's own schedule.

    Reference: Ho et al. 2020, arXiv:2006.11239v2, section 4. Stable Diffusion's runs from beta
        0.00085 to 0.012, with the roots of the rates rising linearly.

    Attributes:
        beta_first: Rate of the first, above 0.
        beta_last: Rate of the last, above beta_first and below 1.
        is_rooted: Whether the roots of the rates rise linearly.

    Raises:
        ValueError: If a value is out of range.
    """

    beta_first: float = 1e-4
    beta_last: float = 0.02
    is_rooted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.beta_first < self.beta_last < 1.0:
            raise ValueError(
                "discrete clock needs 0 < beta_first < beta_last < 1, "
                f"got {self.beta_first} and {self.beta_last}"
            )

    @property
    def rates(self) -> Float[Tensor, " levels"]:
        """Rate of each level in double precision."""
        first, last = self.beta_first, self.beta_last
        if self.is_rooted:
            roots = torch.linspace(first**0.5, last**0.5, self.levels, dtype=torch.float64)
            return roots.square()
        return torch.linspace(first, last, self.levels, dtype=torch.float64)


@final
@dataclass(frozen=True, kw_only=True)
class DiscreteCosineClock(AbstractDiscreteClock):
    """A finite number of levels whose share of data falls like a cosine, at a limited rate.

        beta_k = min(1 - c(k) / c(k - 1), beta_most)
        c(k) = cos^2(pi / 2 (k / levels + offset) / (1 + offset))

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672v1, Eq. (17) and the limit below it. The
        library diffusers calls it squaredcos_cap_v2.

    Attributes:
        offset: How far the clock is from the slowest point at the data, above 0.
        beta_most: Largest rate, in (0, 1).

    Raises:
        ValueError: If a value is out of range.
    """

    offset: float = 0.008
    beta_most: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.offset < math.inf and 0.0 < self.beta_most < 1.0):
            raise ValueError(
                "discrete cosine clock needs a finite offset above 0 and beta_most in (0, 1), "
                f"got {self.offset} and {self.beta_most}"
            )

    @property
    def rates(self) -> Float[Tensor, " levels"]:
        """Rate of each level in double precision."""
        place = torch.linspace(0.0, 1.0, self.levels + 1, dtype=torch.float64)
        share = torch.cos(0.5 * math.pi * (place + self.offset) / (1.0 + self.offset)).square()
        return (1.0 - share[1:] / share[:-1]).clamp(max=self.beta_most)


def _uniform(ends: tuple[float, float], n: int, rng: Rng, dtype: torch.dtype) -> Tensor:
    """Readings between the ends, up to the noise itself."""
    near, far = ends
    return far - (far - near) * rng.uniform(n, dtype=dtype)


@lru_cache(maxsize=32)
def _log_levels(clock: AbstractDiscreteClock, device: torch.device) -> Float[Tensor, " levels"]:
    # On the CPU even where networks are laid out without memory.
    with torch.device("cpu"):
        rates = clock.rates
    return (0.5 * torch.expm1(-torch.log1p(-rates).cumsum(0)).log()).to(device)
