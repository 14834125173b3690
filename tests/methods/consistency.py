"""What discrete consistency methods have in common in tests: their fixed point and their noise."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.distance import AbstractDistance
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.shape import rows_like
from onestep.methods.core.times import AbstractTimes
from onestep.methods.core.weighting import AbstractWeighting
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.exactness import ORACLE

Factor = Callable[[Tensor, float, float], Tensor]
"""How one pair of times scales the distance to the mean, given the standard deviations."""


def euler(std: Tensor, s: float, t: float) -> Tensor:
    """E[x_t - t m | x_s] over x_s - s m; on Gaussian data, an Euler step of the exact velocity."""
    variance = (1.0 - s) ** 2 + s**2 * std**2
    return ((1.0 - s) * (1.0 - t) + s * t * std**2) / variance


def slopes(std: Tensor, times: Sequence[float], factor: Factor = euler) -> list[Tensor]:
    """The slope k of the fixed point f = m + k (x - t m) at each time; 1 / t at the last one."""
    found = [torch.ones_like(std) / times[-1]]
    for s, t in reversed(list(pairwise(times))):
        found.insert(0, factor(std, s, t) * found[0])
    return found


def std_ratio(times: Sequence[float], *, std: float, factor: Factor = euler) -> float:
    """Standard deviation of one-step samples of the fixed point, over that of the data."""
    exact = torch.tensor(std, dtype=torch.float64)
    t = times[0]
    spread = ((1.0 - t) ** 2 + (t * exact) ** 2).sqrt()
    return (slopes(exact, times, factor)[0] * spread / exact).item()


def karras_times(points: int) -> list[float]:
    """EDM's noise levels from 80 to 0.002 as times; the last is not 1."""
    high, low = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    levels = [(high + i / (points - 1) * (low - high)) ** 7 for i in range(points)]
    return [1.0 / (1.0 + sigma) for sigma in levels]


@final
class FixedPoint(FlowMap):
    """Where a discrete consistency method on a grid stands still; exact at the grid's times."""

    def __init__(self, data: GaussianMap, times: Sequence[float], factor: Factor = euler) -> None:
        super().__init__(domain=Domain())
        self.data = data
        self.times = torch.tensor(times, dtype=torch.float64)
        self.slope = torch.stack(slopes(data.std, times, factor))

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del t, condition
        nearest = (s[:, None] - self.times).abs().argmin(1)
        end = self.data.mean + self.slope[nearest] * (x - rows_like(s, x) * self.data.mean)
        return (end - x) / rows_like((1.0 - s).clamp(min=1e-300), x)


class PairedMethod(Protocol):
    """A method that compares jumps from two times of a pair of noise and data."""

    @property
    def coupling(self) -> AbstractCoupling: ...
    @property
    def domain(self) -> Domain: ...
    @property
    def needs(self) -> Needs: ...
    @property
    def times(self) -> AbstractTimes: ...
    @property
    def distance(self) -> AbstractDistance: ...
    @property
    def weighting(self) -> AbstractWeighting: ...
    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss: ...


@final
@dataclass(frozen=True, kw_only=True)
class Bias(AbstractMethod):
    """What a method's gradient at the oracle has besides the noise of its pairs.

    From its loss a second one is taken, with the same random numbers, whose target has that noise
    and no bias: the network's own jump, moved by as much as the oracle's jump from x_t is moved by
    x_t - E[x_t | x_s].
    """

    method: PairedMethod

    @property
    def coupling(self) -> AbstractCoupling:
        return self.method.coupling

    @property
    def domain(self) -> Domain:
        return self.method.domain

    @property
    def needs(self) -> Needs:
        return self.method.needs

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        again = replace(now, rng=copy.deepcopy(now.rng))
        whole = self.method.loss(nets, batch, now).total
        pair = self.method.times.draw(len(batch), again, dtype=batch.x1.dtype)
        s, t, data = pair.s, pair.t, torch.ones_like(pair.s)
        x_s, x_t = (LinearPath().at(batch.noise, batch.x1, time).x for time in (s, t))
        here = nets.online.jump(x_s, s, data)
        mean = x_s + rows_like(t - s, x_s) * ORACLE.velocity(x_s, s)
        noise = ORACLE.jump(x_t, t, data) - ORACLE.jump(mean, t, data)
        error = self.method.distance(here, here.detach() + noise)
        return Loss(terms={"bias": whole - self.method.weighting(error, s, t)})
