"""A multistep sampler: each step remembers what the one before it predicted."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap
from .grid import AbstractGrid, KarrasGrid
from .linear_steps import AbstractLinearSteps
from .sampler import finish, times_like


@final
@dataclass(frozen=True, kw_only=True)
class DpmSolver(AbstractLinearSteps):
    """DPM-Solver++(2M): the predicted data, extrapolated in the log of the noise level.

        x_t = (1 - t) / (1 - s) x_s + (t - s) / (1 - s) (D_s + (h / 2 h') (D_s - D_r))

    with D = x + (1 - t) v the data predicted from where each step begins, r the start of the step
    before, and h = ln(sigma_s / sigma_t), h' = ln(sigma_r / sigma_s). One evaluation a step, second
    order. Without the extrapolation this is Euler's step, or DDIM's: the first step takes it, and
    so does one that ends at the data or follows one from pure noise. The linear path only.

    Reference: Lu et al. 2022, arXiv:2211.01095v2, Alg. 2.
    Convention: their state is that of a variance-preserving diffusion, of which this is the same
        step in the coordinates of the linear path; their lambda is -ln sigma.

    Attributes:
        grid: Where the steps begin and end.
    """

    grid: AbstractGrid = KarrasGrid(steps=20)

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x, before, r = noise[0] * (1.0 - domain.t_lo), None, 0.0
        for s, t in pairwise(self.grid.times(domain.t_lo, domain.t_hi)):
            data = x + (1.0 - s) * flow_map.velocity(x, times_like(s, x), condition)
            guess = data if before is None else data + _share(r, s, t) * (data - before)
            x = ((1.0 - t) / (1.0 - s)) * x + ((t - s) / (1.0 - s)) * guess
            before, r = data, s
        return finish(flow_map, x, condition)


def _share(r: float, s: float, t: float) -> float:
    """Half the length of the step from s to t over that from r to s, in ln sigma."""
    if r == 0.0 or t == 1.0:
        return 0.0
    return 0.5 * _length(s, t) / _length(r, s)


def _length(s: float, t: float) -> float:
    return math.log((1.0 - s) * t / (s * (1.0 - t)))
