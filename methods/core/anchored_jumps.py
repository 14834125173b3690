"""A sampler of consistency functions that keeps to its noise."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, FlowMap
from .grid import AbstractGrid, UniformGrid
from .sampler import AbstractSampler, require_jumps_to_data, require_linear, times_like


@final
@dataclass(frozen=True, kw_only=True)
class AnchoredJumps(AbstractSampler):
    """Jumps to the data, each from the first noise x0 mixed into the last result.

        x_t = (1 - t) x0 + t X(s, 1)(x_s)

    For maps that were trained with noise paired to the data, such as that of optimal transport. An
    exact map leads x0 to its own data, so that x_t is a state on which it was trained; with fresh
    noise, as in ``Renoise``, it is none. In law this is exact as far as the noise determines its
    data. For a map of independent noise it is not: samples come out too wide.

    Reference: arXiv:2303.01469v2, Alg. 1, with one noise for all steps; no paper has it for paired
        noise.

    Attributes:
        grid: Times at which the jumps begin.
    """

    grid: AbstractGrid = UniformGrid(steps=2)

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1

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
        require_jumps_to_data("AnchoredJumps", domain)
        require_linear("AnchoredJumps", domain)

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain, x0 = flow_map.domain, noise[0]
        x = torch.zeros_like(x0)
        for s in self.grid.times(domain.t_lo, domain.t_hi)[:-1]:
            state = (1.0 - s) * x0 + s * x
            x = flow_map.jump(state, times_like(s, x), times_like(1.0, x), condition)
        return x
