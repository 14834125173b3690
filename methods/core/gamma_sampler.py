"""Gamma sampling: jumps that go too far and are renoised back."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, FlowMap
from .grid import AbstractGrid, UniformGrid
from .sampler import (
    AbstractSampler,
    finish,
    finishing,
    require_linear,
    require_velocity,
    times_like,
)


@final
@dataclass(frozen=True, kw_only=True)
class GammaJumps(AbstractSampler):
    """Jumps past each time of a grid but the last, and fresh noise that leads back to it.

        a jump to h >= t, then x_t = (t / h) x_h + gamma (1 - t) n

    In noise levels (1 - t) / t the jump ends at sqrt(1 - gamma^2) times that of t, so that for an
    exact map of independent noise the state at t has its law for every gamma. Of a map that was
    trained with paired noise samples grow narrower with gamma and with every step. Gamma 0 is a
    chain of jumps, gamma 1 is ``Renoise``: jumps to the data. The linear path only.

    Reference: Kim et al. 2023, arXiv:2310.02279v3, whose gamma this is; Sabour et al. 2025,
        arXiv:2506.14603v1, for flow maps, perhaps by another measure of how far to go.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t.

    Attributes:
        grid: Where the jumps begin, and where the noise leads back to.
        gamma: Share of the noise at each time that is fresh, in [0, 1].

    Raises:
        ValueError: If gamma is out of range.
    """

    grid: AbstractGrid = UniformGrid(steps=2)
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {self.gamma}")

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return self.grid.steps if self.gamma > 0.0 else 1

    def evaluations(self, domain: Domain) -> int:
        """Evaluations of the map for one sample: the jumps, and the denoising if there is one."""
        return self.grid.steps + finishing(domain)

    def check(self, domain: Domain) -> None:
        """Refuse a map that was not trained on these jumps.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If a jump lies outside the domain, its range ends before the data and it has
                no velocity to denoise by, or noise is to be mixed in on another path than the
                linear one.
        """
        for s, _, far in self._jumps(domain):
            if not domain.admits(s, far):
                raise ValueError(
                    f"jumps with gamma {self.gamma:g} need a map trained from {s:g} to {far:g}, "
                    f"got one with domain {domain.kind}"
                    + (f" that ends at t = {domain.t_hi:g}" if domain.t_hi < 1.0 else "")
                )
        if finishing(domain):
            require_velocity(f"denoising at t = {domain.t_hi:g}", domain)
        if self.draws > 1:
            require_linear("renoising", domain)

    def _jumps(self, domain: Domain) -> list[tuple[float, float, float]]:
        """Start, aim and end of each jump; the last ends where it aims."""
        *aims, last = list(pairwise(self.grid.times(domain.t_lo, domain.t_hi)))
        kept = math.sqrt(1.0 - self.gamma**2)
        past = [(s, t, t if kept == 1.0 else t / (t + kept * (1.0 - t))) for s, t in aims]
        return [*past, (*last, last[1])]

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x = noise[0] * (1.0 - domain.t_lo)
        for k, (s, t, far) in enumerate(self._jumps(domain), start=1):
            x = flow_map.jump(x, times_like(s, x), times_like(far, x), condition)
            if k < self.draws:
                x = (t / far) * x + self.gamma * (1.0 - t) * noise[k]
        return finish(flow_map, x, condition)
