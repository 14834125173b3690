"""Samplers: a flow map and noise become data."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, DomainKind, FlowMap
from .grid import AbstractGrid, UniformGrid
from .path import LINEAR

_NEGLIGIBLE: Final = 1e-4
"""A rest of the time up to the data that is not worth an evaluation. On the linear path it leaves
noise of 1e-4, an eightieth of the step between two of 256 grey levels in [-1, 1]; on the
variance-preserving one, which ends 1e-5 before the data, noise of 1e-3, an eighth of it. EDM ends
0.002 before the data and is denoised."""


class AbstractSampler(ABC):
    """A way to walk from noise to data. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""

    @abstractmethod
    def evaluations(self, domain: Domain) -> int | None:
        """Evaluations of a map of this domain for one sample; None if they depend on the map."""

    @abstractmethod
    def check(self, domain: Domain) -> None:
        """Refuse a map that was not trained where this sampler evaluates it.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If the sampler would leave the domain.
        """

    @abstractmethod
    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        """The samples, without any check."""

    @final
    def sample(
        self,
        flow_map: FlowMap,
        noise: Float[Tensor, "draws b *d"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Samples of the data, without a graph.

        Args:
            flow_map: The map to sample from.
            noise: Standard normal numbers, as many draws as ``draws``.
            condition: Condition of each sample, or None.

        Returns:
            One sample for each row of the noise.

        Raises:
            ValueError: If the map's domain or the number of draws does not fit.
        """
        self.check(flow_map.domain)
        if len(noise) != self.draws:
            raise ValueError(
                f"{type(self).__name__} takes {self.draws} draws of noise, got {len(noise)}"
            )
        with torch.no_grad():
            return self._walk(flow_map, noise, condition)


def times_like(time: float, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """The same time for each row."""
    return torch.full((len(x),), time, dtype=x.dtype, device=x.device)


def require_velocity(who: str, domain: Domain) -> None:
    """Refuse a map that is no velocity.

    Args:
        who: What needs the velocity, as the error begins.
        domain: The map's domain.

    Raises:
        ValueError: If the map was not trained on the diagonal.
    """
    if not domain.has_velocity:
        raise ValueError(
            f"{who} needs a map trained on the diagonal, got one with domain {domain.kind}"
        )


def require_linear(who: str, domain: Domain) -> None:
    """Refuse a map of another path than the linear one.

    Args:
        who: What goes by the linear path, as the error begins.
        domain: The map's domain.

    Raises:
        ValueError: If the map's trajectories lie on another path.
    """
    if domain.path != LINEAR:
        raise ValueError(f"{who} needs a map of the linear path, got one of the path {domain.path}")


def require_jumps_to_data(who: str, domain: Domain) -> None:
    """Refuse a map that does not lead from every time to the data.

    Args:
        who: What needs the jumps, as the error begins.
        domain: The map's domain.

    Raises:
        ValueError: If the map has no such jumps, or its range ends before the data.
    """
    if domain.kind not in (DomainKind.TO_DATA, DomainKind.TRIANGLE):
        raise ValueError(
            f"{who} needs a map trained to jump to data from every time, "
            f"got one with domain {domain.kind}"
        )
    if domain.t_hi < 1.0:
        raise ValueError(
            f"{who} needs a map whose range reaches the data, "
            f"got one that ends at t = {domain.t_hi:g}"
        )


def finishing(domain: Domain) -> int:
    """Evaluations that ``finish`` takes: 1 where the map's range ends before the data, else 0.

    A range that ends less than 1e-4 before them ends at them.
    """
    return 0 if 1.0 - domain.t_hi < _NEGLIGIBLE else 1


def finish(
    flow_map: FlowMap, x: Float[Tensor, " b *d"], condition: Condition | None
) -> Float[Tensor, " b *d"]:
    """The data from a state at the end of the map's range: denoised once if it ends before them."""
    if not finishing(flow_map.domain):
        return x
    t_hi = flow_map.domain.t_hi
    return x + (1.0 - t_hi) * flow_map.velocity(x, times_like(t_hi, x), condition)


@final
@dataclass(frozen=True, kw_only=True)
class Jumps(AbstractSampler):
    """One jump of the map for each interval of a grid; by default one jump from noise to data.

    Where the map's range ends before the data, one denoising leads on to them.

    Attributes:
        grid: Where the jumps begin and end.
    """

    grid: AbstractGrid = UniformGrid(steps=1)

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1

    def evaluations(self, domain: Domain) -> int:
        """Evaluations of the map for one sample: the jumps, and the denoising if there is one."""
        return self.grid.steps + finishing(domain)

    def check(self, domain: Domain) -> None:
        """Refuse a map that was not trained on these jumps.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If a jump lies outside the domain, or its range ends before the data and
                it has no velocity to denoise by.
        """
        times = self.grid.times(domain.t_lo, domain.t_hi)
        for s, t in pairwise(times):
            if not domain.admits(s, t):
                raise ValueError(
                    f"{self.grid.steps} jumps need a map trained from {s:g} to {t:g}, "
                    f"got one with domain {domain.kind}"
                    + (f" of {domain.steps} steps" if domain.steps else "")
                )
        if finishing(domain):
            require_velocity(f"denoising at t = {domain.t_hi:g}", domain)

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x = noise[0] * (1.0 - domain.t_lo)
        times = self.grid.times(domain.t_lo, domain.t_hi)
        for s, t in pairwise(times):
            x = flow_map.jump(x, times_like(s, x), times_like(t, x), condition)
        return finish(flow_map, x, condition)


@dataclass(frozen=True, kw_only=True)
class MixedJumps(AbstractSampler, ABC):
    """Jumps to the data, each from noise mixed into the last result: x_t = (1 - t) noise + t x.

    Attributes:
        grid: Times at which the jumps begin.
    """

    grid: AbstractGrid = UniformGrid(steps=2)

    def evaluations(self, domain: Domain) -> int:
        """Evaluations of the map for one sample: the jumps, which all end at the data."""
        del domain
        return self.grid.steps

    def check(self, domain: Domain) -> None:
        """Refuse a map that was not trained to jump to the data.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If the map has no jump to the data, its range ends before them, or noise is
                to be mixed in on another path than the linear one.
        """
        require_jumps_to_data(type(self).__name__, domain)
        if self.grid.steps > 1:
            require_linear(type(self).__name__, domain)

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x = torch.zeros_like(noise[0])
        for k, s in enumerate(self.grid.times(domain.t_lo, domain.t_hi)[:-1]):
            state = s * x + (1.0 - s) * self._noise(noise, k)
            x = flow_map.jump(state, times_like(s, x), times_like(1.0, x), condition)
        return x

    @abstractmethod
    def _noise(self, noise: Float[Tensor, "draws b *d"], k: int) -> Float[Tensor, " b *d"]:
        """What is mixed in before a jump; the first jump begins at noise alone."""


@final
@dataclass(frozen=True, kw_only=True)
class Renoise(MixedJumps):
    """Jumps to the data, each from fresh noise mixed into the last result.

    Exact in law for an exact map whose noise is independent of the data; with a learned one its
    errors add up as steps are added. A map that was trained with paired noise, such as that of
    optimal transport, has not seen what this mixes, and its samples grow narrower with every step:
    its sampler is ``AnchoredJumps``.

    Reference: Song et al. 2023, arXiv:2303.01469v2, Alg. 1, on the linear path.
    """

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return self.grid.steps

    def _noise(self, noise: Tensor, k: int) -> Tensor:
        return noise[k]


@final
@dataclass(frozen=True, kw_only=True)
class AnchoredJumps(MixedJumps):
    """Jumps to the data, each from the first noise mixed into the last result.

    For maps that were trained with noise paired to the data. With a correlation of 1 the first
    noise is kept, which is exact in law where noise determines its data, as that of global optimal
    transport does. Transport within a batch does not: what is kept is then more than what was
    trained on, and samples grow wider with every step. Below 1 noise is mixed from the first and
    fresh one,

        correlation x_0 + sqrt(1 - correlation^2) n

    which is exact for two steps of a Gaussian whose coupling has this correlation. 0 is
    ``Renoise``. What a coupling has is seldom known: try it, as after the training of a trial.

    Reference: arXiv:2303.01469v2, Alg. 1, whose noise is fresh; no paper has paired noise.

    Attributes:
        correlation: Of the noise at each step with the first, in [0, 1].

    Raises:
        ValueError: If the correlation is out of range.
    """

    correlation: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.correlation <= 1.0:
            raise ValueError(f"correlation must lie in [0, 1], got {self.correlation}")

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1 if self.correlation == 1.0 else self.grid.steps

    def _noise(self, noise: Tensor, k: int) -> Tensor:
        if k == 0 or self.correlation == 1.0:
            return noise[0]
        fresh = math.sqrt(1.0 - self.correlation**2)
        return self.correlation * noise[0] + fresh * noise[k]
