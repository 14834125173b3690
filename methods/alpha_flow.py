"""Alpha flow: from flow matching over whole jumps to mean flow, by one number that falls to 0."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.calculus import AbstractDerivative, ForwardMode, value_of
from .core.condition import Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import BOTH_MOVE, STARTS_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, FlowMap
from .core.guidance import Guidance, LabelDropout
from .core.method import AbstractMethod, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, Sigmoid, require_range
from .core.shape import rows_like
from .core.times import AbstractTimes, SortedTimes, require_diagonal
from .core.two_parts import two_part_target
from .core.weighting import AbstractWeighting, AdaptivePower, require_weighed_diagonal


class Shift(StrEnum):
    """Which velocity leads from a state to the state between, where the jump goes on."""

    SAMPLE = "sample"
    """That of the pair of noise and data."""
    JUMP = "jump"
    """The network's own average velocity of the first part."""


@final
@dataclass(frozen=True, kw_only=True)
class AlphaFlow(AbstractMethod):
    """Alpha flow: a jump equals a short first part and the jump of the network from there.

        loss = |u(x, s, t) - (alpha w + (1 - alpha) u(x + (m - s) w, m, t))|^2 / alpha
        m = s + alpha (t - s)

    The second term is held constant; w is the velocity of the pair. At alpha = 1 the velocity is
    regressed for every t (trajectory flow matching), as alpha falls to 0 the gradient becomes that
    of mean flow, and at 1/2 with w = u(x, s, m) it is that of shortcut models. The curriculum goes
    from 1, where learning is easy and wrong, to 0, where it is noisy and right.

    Reference: Zhang et al. 2025, arXiv:2510.20771v1, Eq. (8), Theorem 1, Alg. 1 and 2.
    Convention: theirs runs data -> noise; with (t', r', s') theirs, t' = 1 - s, r' = 1 - t and
        s' = 1 - m; velocities change sign.
    Differs from the paper: the residual is that of the loss above divided by alpha, u - w -
        (1 - alpha) (u(x_m, m, t) - u) / alpha with the last fraction held constant. Its square has
        the same gradient, its size can be compared across alpha, and the difference is taken in
        full precision. The weight takes this residual; theirs, alpha / (error + c) of the undivided
        one, is the same with the offset c / alpha^2, which mutes the jumps near the end of the
        curriculum. Their error is a mean over dimensions, to which they add 1e-3, and this one is a
        sum: with power 1 an offset of 1e-3 d is theirs, up to a factor d of the weight. Guidance
        includes the ends of its interval, and labels are dropped at all times. A moving average as
        teacher, which the paper tries and drops, is left out.
    Cost: one forward pass a step; on the rows off the diagonal nothing more at alpha = 1, one more
        forward between, a derivative at 0. A shift by the jump is one more forward. With guidance
        one more without label, and with its ``kappa`` another with it, on all rows.
    Fails by: a minimum that is off by order alpha, so a run must not stop at a large one; more
        noise as alpha falls; with the shift by the jump only diagonal rows see data.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t): of the whole triangle, or with the shift by the sample of jumps to the
            data. The shift by the jump needs rows on the diagonal.
        alpha: Share of the interval before m, in [0, 1].
        clamp: An alpha below it becomes 0 and one above 1 - clamp becomes 1, in (0, 0.5). A
            schedule that ends at the clamp itself never takes a derivative.
        shift: The velocity w. A jump is exact at any alpha, and is refused where alpha reaches 0 or
            1, at which it would teach nothing.
        weighting: Weight of each sample; the error is a sum over dimensions.
        derivative: How the derivative along the path is taken at alpha = 0.
        clip: Largest absolute value of the jump in two parts, alpha w + (1 - alpha) u(x_m, m, t),
            above 0, or None for no limit; 4 in their largest runs, whose data have unit scale.
        label_dropout: How often a sample is seen without its label.
        guidance: Classifier-free guidance in the target.

    Raises:
        ValueError: If alpha, the clamp or the clip is out of range, the times cover no jumps that
            this teaches, rows on the diagonal have no weight, or no row teaches the velocity that
            guidance or the shift by the jump reads.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(diagonal=Constant(value=0.5))
    alpha: Schedule = Sigmoid(start=1.0, end=0.0, snap=0.0)
    clamp: float = 0.005
    shift: Shift = Shift.SAMPLE
    weighting: AbstractWeighting = AdaptivePower(power=1.0, offset=0.001)
    derivative: AbstractDerivative = ForwardMode()
    clip: float | None = None
    label_dropout: LabelDropout = LabelDropout()
    guidance: Guidance = Guidance()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", Shift(self.shift))
        if not 0.0 < self.clamp < 0.5:
            raise ValueError(f"method.clamp must lie in (0, 0.5), got {self.clamp}")
        if self.clip is not None and not 0.0 < self.clip < math.inf:
            raise ValueError(f"method.clip must be finite and positive, or null, got {self.clip}")
        is_jump = self.shift is Shift.JUMP
        require_coverage(
            f"alpha flow with shift {self.shift}", self.times, BOTH_MOVE if is_jump else STARTS_MOVE
        )
        if is_jump:
            require_diagonal("method.shift jump", self.times)
            name = "method.alpha with shift jump"
            require_range(name, self.alpha, self.clamp, 1.0 - self.clamp)
        require_range("method.alpha", self.alpha, 0.0, 1.0)
        if self.times.meets_diagonal:
            require_weighed_diagonal(self.weighting)
        if self.guidance.is_on:
            require_diagonal("method.guidance", self.times)
            self.label_dropout.warn_if_never("method.guidance")

    @property
    def domain(self) -> Domain:
        """What the times cover, as far as the path's velocity is finite."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def share(self, now: Moment) -> float:
        """Alpha at this moment, 0 or 1 where it is nearer to them than the clamp."""
        alpha = self.alpha(now)
        if alpha < self.clamp:
            return 0.0
        return 1.0 if alpha > 1.0 - self.clamp else alpha

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, rows = times.s, times.t, times.off_rows
        x, v = self.path.at(batch.noise, batch.x1, s)
        v, condition = self.guidance.apply(
            nets, batch, now, dropout=self.label_dropout, x=x, v=v, s=s
        )

        u = nets.online(x, s, t, condition)

        target, alpha = v.clone(), self.share(now)
        if len(rows) and alpha < 1.0:
            some = None if condition is None else condition[rows]
            with dropout_rows(rows):
                target[rows] = self.target(
                    nets.online, x[rows], s[rows], t[rows], some, v=v[rows], u=u[rows], alpha=alpha
                )

        error = SquaredL2()(u, target)
        return Loss(
            terms={"alpha_flow": self.weighting(error, s, t)},
            logs={"error": error.detach()},
            times=s,
        )

    def target(
        self,
        flow_map: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        v: Float[Tensor, " b *d"],
        u: Float[Tensor, " b *d"],
        alpha: float,
    ) -> Float[Tensor, " b *d"]:
        """What u is regressed on at an alpha below 1, without a graph.

        Args:
            flow_map: The network.
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row.
            v: Velocities of the pairs.
            u: The network's average velocities over [s, t].
            alpha: Share of the interval before the state between, in [0, 1).

        Returns:
            The target, whose distance from u is the residual over alpha.
        """

        def average(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
            return flow_map(x, s, t, condition)

        if alpha == 0.0:
            tangent = (v, torch.ones_like(s), torch.zeros_like(t))
            du_ds = self.derivative.along(average, (x, s, t), tangent, value=u)
            return v + rows_like(t - s, x) * du_ds
        is_sample = self.shift is Shift.SAMPLE
        w = v if is_sample else value_of(average, (x, s, s + alpha * (t - s)))
        target = two_part_target(average, (x, s, t), w=w, u=u, share=alpha)
        if self.clip is None:
            return target
        here = u.detach()
        whole = here + alpha * (target - here)
        return target + (whole.clamp(-self.clip, self.clip) - whole) / alpha
