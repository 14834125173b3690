"""A sampler that keeps to its noise: each state lies between it and the data last predicted."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap
from .linear_steps import AbstractLinearSteps
from .sampler import finish, times_like


@final
@dataclass(frozen=True, kw_only=True)
class AnchoredSteps(AbstractLinearSteps):
    """A velocity whose paths are nearly straight, read from one line through the noise x0.

        x_t = (1 - t) x0 + t (x_s + (1 - s) v(x_s, s))

    Euler's step would go on from x_s; this one goes back to the noise and mixes it anew with the
    data that are predicted. In up to two steps, or where paths are straight, both are the same.
    With a few steps of a rectified flow this is better. It is no solver: on a curved path its error
    does not fall with the number of steps, and in the end it grows.

    Reference: Lee, Lin and Fanti 2024 (2-RF++), arXiv:2405.20320v1, the sampler "new" of their
        code.
    Convention: theirs runs data -> noise; t' = 1 - t.
    """

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain, x0 = flow_map.domain, noise[0]
        x = x0 * (1.0 - domain.t_lo)
        for s, t in pairwise(self.grid.times(domain.t_lo, domain.t_hi)):
            data = x + (1.0 - s) * flow_map.velocity(x, times_like(s, x), condition)
            x = (1.0 - t) * x0 + t * data
        return finish(flow_map, x, condition)
