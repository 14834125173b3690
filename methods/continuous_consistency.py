"""Continuous-time consistency: the jump to data must not change along a trajectory."""

import math
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.calculus import AbstractDerivative, ForwardMode
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.learned_weighting import LOSS_WEIGHT, LearnedWeighting
from .core.method import AbstractMethod, Needs
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Linear, Schedule, require_range
from .core.shape import rows_like
from .core.teacher import AbstractVelocitySource, PairVelocity, require_readings
from .core.time_law import LogitNormal
from .core.times import ToDataTimes

_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class ContinuousConsistency(AbstractMethod):
    """Continuous-time consistency (sCM): the jump to data stands still along dx/ds = v.

        0 = d f / d s = v - u + (1 - s) (v . grad_x u + d u / d s)   with f = x + (1 - s) u

    The network is moved by a step along this tangent, whose length is bounded: in units of the raw
    network F of a preconditioned one, where S^2 = (1 - s)^2 + (sigma_data s)^2,

        g = - s S df/ds,   F <- F + g / (|g| + offset),   u <- u - (sigma_data / S) (change of F)

    With the pair's own velocity this is consistency training (sCT), with a teacher's velocity it is
    distillation (sCD). A learned weight evens out the times.

    Reference: Lu and Song 2024, arXiv:2410.11081v1, sections 3 and 4.2 and Alg. 1.
    Convention: theirs is an angle p with tan p = (1 - s) / (s sigma_data), 0 at the data, the state
        x sigma_data / S, and a network F with f = cos(p) state - sin(p) sigma_data F; then
        d u = -(sigma_data / S) d F, and their cos(p) df/dp is g. A log-normal sigma_data tan p of
        mean -1 is a logit-normal time of mean 1.
    Differs from the paper: u may be any network; where F is meant, take a preconditioned one. Time
        enters as the library's networks have it, in place of the angle. The derivative is that of
        u along (v, 1), which is finite at both ends, so that it needs no other arrangement. The
        learned weight is a sum of cosines of time and begins at 1.
    Cost: one forward pass a step and a derivative of all rows (one or two), and one of the teacher
        in distillation, two if it is guided.
    Fails by: a steep time embedding, whose derivative explodes; noise of the pairs' velocity, which
        grows with the dimension and which a teacher removes; a small offset in few dimensions,
        where the length of noisy tangents varies: bounded, they do not cancel at the exact map; a
        law of times with much weight on noise, since errors flow from the data to the noise.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Law of s.
        source: The pair's own velocity, or a teacher's.
        sigma_data: Standard deviation of a coordinate of the data, above 0.
        tangent: Share r of the derivative, in [0, 1]; a ramp from 0 to 1 warms up from flow
            matching, to which g tends as r does to 0. Below 1 the minimum is biased.
        offset: What is added to the length of g, above 0. Large ones leave the tangent as it is,
            but for a factor.
        derivative: How the derivative along the trajectory is taken.
        weighting: The learned weight; None weights all times alike. Errors vanish as s^2 at pure
            noise: a law with many times there needs a weight with an offset, or None.
        label_dropout: How often a sample is seen without its label, by the teacher too.
        t_lo: Where generation begins, in [0, 1): a noise level of 80. Earlier times, which are
            drawn as well but have little weight, are not promised.

    Raises:
        ValueError: If a value is out of range.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: ToDataTimes = ToDataTimes(law=LogitNormal(mean=1.0, std=1.4))
    source: AbstractVelocitySource = PairVelocity()
    sigma_data: float = 0.5
    tangent: Schedule = Linear(start=0.0, end=1.0, until=0.025)
    offset: float = 0.1
    derivative: AbstractDerivative = ForwardMode()
    weighting: LearnedWeighting | None = LearnedWeighting()
    label_dropout: LabelDropout = LabelDropout()
    t_lo: float = 1.0 / 81.0

    def __post_init__(self) -> None:
        require_range("method.tangent", self.tangent, 0.0, 1.0)
        if not (0.0 < self.sigma_data < math.inf and 0.0 < self.offset < math.inf):
            raise ValueError(
                "method needs finite sigma_data > 0 and offset > 0, "
                f"got {self.sigma_data} and {self.offset}"
            )
        if not 0.0 <= self.t_lo < 1.0:
            raise ValueError(f"method.t_lo must lie in [0, 1), got {self.t_lo}")

    @property
    def domain(self) -> Domain:
        """Jumps to the data."""
        return Domain(
            kind=DomainKind.TO_DATA, t_lo=self.t_lo, has_paired_noise=self.coupling.is_paired
        )

    @property
    def needs(self) -> Needs:
        """The teacher, if there is one, with what guides it, and the learned weight."""
        companions = {} if self.weighting is None else {LOSS_WEIGHT: self.weighting.companion}
        on = Domain(kind=DomainKind.DIAGONAL, t_lo=self.t_lo)
        return replace(self.source.needs(on), companions=companions)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        require_readings(self.needs, nets)
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, data = times.s, times.t
        condition = self.label_dropout.keep(batch, now)
        condition = self.source.guidance.tell(condition, batch, now)
        x, own = _PATH.at(batch.noise, batch.x1, s)
        v = self.source.velocity(nets, x, s, condition, own=own)

        u = nets.online(x, s, data, condition)
        du_ds = self.derivative.along(
            lambda x, s: nets.online(x, s, data, condition),
            (x, s),
            (v, torch.ones_like(s)),
            value=u,
        )

        g = self.step(v - u.detach(), du_ds, s, share=self.tangent(now))
        scale = self._spread(s) / self.sigma_data
        target = u.detach() - g / rows_like(scale, g)
        # The mean over dimensions of the squared change of F.
        error = SquaredL2()(u, target) * scale.square() / x[0].numel()
        weighted = error
        if self.weighting is not None:
            weighted = self.weighting(nets.companions[LOSS_WEIGHT], error, s, data)
        return Loss(
            terms={"continuous_consistency": weighted}, logs={"error": error.detach()}, times=s
        )

    def step(
        self,
        drift: Float[Tensor, " b *d"],
        du_ds: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        *,
        share: float,
    ) -> Float[Tensor, " b *d"]:
        """The bounded change of F.

        Args:
            drift: v - u.
            du_ds: Derivative of u along the trajectory.
            s: Times.
            share: Share of the derivative, r.

        Returns:
            g / (|g| + offset), with g = (1 - r) g_0 + r g_1: g_1 is -s S df/ds, and g_0 what the
            paper leaves of it at r = 0, -(sigma_data s)^2 / S times the drift.
        """
        spread = self._spread(s)
        first = rows_like((self.sigma_data * s).square() / spread, drift) * drift
        whole = rows_like(s * spread, drift) * (drift + rows_like(1.0 - s, drift) * du_ds)
        g = -((1.0 - share) * first + share * whole)
        return g / rows_like(g.flatten(1).norm(dim=1) + self.offset, g)

    def _spread(self, s: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """S, the standard deviation of a coordinate of the state."""
        return ((1.0 - s).square() + (self.sigma_data * s).square()).sqrt()
