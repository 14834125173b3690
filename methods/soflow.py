"""SoFlow: a solution of the flow's equation agrees with itself a little later on."""

import math
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .core.calculus import value_of
from .core.condition import Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import STARTS_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, FlowMap
from .core.guidance import LabelDropout, require_labels
from .core.method import AbstractMethod, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Exponential, Schedule, require_range
from .core.shape import rows_like
from .core.times import AbstractTimes, SortedTimes, require_diagonal
from .core.two_parts import two_part_target
from .core.weighting import AbstractWeighting, AdaptivePower, require_weighed_diagonal

_SHORTEST: Final = 1e-4
"""Least ratio: below it a difference of float32 values over it is noise."""


@final
@dataclass(frozen=True, kw_only=True)
class SoFlow(AbstractMethod):
    """SoFlow: the solution from a state equals the solution from a state shortly ahead.

        loss = |X(s, t)(x) - X(l, t)(x + (l - s) w)|^2 / ((l - s) (t - s))
        l = s + ratio (t - s)

    The second solution is held constant; w is the velocity of the pair, guided and mixed with the
    network's own. The ratio falls from 1, where the loss is flow matching over the whole interval,
    and never reaches 0, so that no derivative is taken. Diagonal rows are flow matching and give
    the velocity that guidance needs.

    Reference: Luo et al. 2025, arXiv:2512.15657v1, Eq. (14) and (16) and section 3; weights and
        numbers after their code.
    Convention: theirs runs data -> noise; with (t', l', s') theirs, t' = 1 - s, l' = 1 - l and
        s' = 1 - t; velocities change sign. Guidance fades out above t' = 0.8, below s = 0.2 here.
    Differs from the paper: a solution is x + (t - s) u, their Euler form; the trigonometric one is
        left out. The loss is the square of u - w - (1 - ratio) (u(x_l, l, t) - u) / ratio with the
        last fraction held constant, whose gradient is that of the loss above; theirs multiplies u
        by this residual, which is half that gradient. The weight's error is a sum over dimensions,
        theirs a mean, so that an offset of 1e-3 d is their 1e-3, up to a factor of the weight. How
        guidance fades they do not say: here its excess over 1 falls linearly in s to 0 at the
        noise. The mix is on jumps alone, as on the diagonal it would only scale the loss.
    Cost: one forward pass a step, and on the rows off the diagonal one more; another there for a
        mix below 1, and one of all rows without label for guidance.
    Fails by: a minimum that is off by order ratio; with a mix below 1 a poor diagonal misleads the
        jumps; more noise as the ratio falls.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t): of the whole triangle, or of jumps to the data.
        ratio: Share of the interval before l, in [0.0001, 1]. The paper's ends at 0.002 for
            ImageNet and at 0.0003125 for CIFAR-10.
        weighting: Weight of each sample.
        mix: Share of the pair's velocity in w, in [0, 1]; the rest is the network's own. The
            paper's is 0.25, beside guidance.
        label_dropout: How often a sample is seen without its label.
        scale: Guidance scale of the target, at least 1; 1 is none, the paper's is 3.
        fade: Times below it are guided less, in [0, 1].

    Raises:
        ValueError: If a number is out of range, the times cover no jumps that this teaches, rows
            on the diagonal have no weight, or a mix or guidance meets times without a diagonal.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(diagonal=Constant(value=0.75))
    ratio: Schedule = Exponential(start=1.0, end=0.002)
    weighting: AbstractWeighting = AdaptivePower()
    mix: float = 1.0
    label_dropout: LabelDropout = LabelDropout()
    scale: float = 1.0
    fade: float = 0.2

    def __post_init__(self) -> None:
        require_range("method.ratio", self.ratio, _SHORTEST, 1.0)
        require_coverage("SoFlow", self.times, STARTS_MOVE)
        if self.times.meets_diagonal:
            require_weighed_diagonal(self.weighting)
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"method.mix must lie in [0, 1], got {self.mix}")
        if not (1.0 <= self.scale < math.inf and 0.0 <= self.fade <= 1.0):
            raise ValueError(
                "method needs a finite scale >= 1 and fade in [0, 1], "
                f"got scale {self.scale} and fade {self.fade}"
            )
        if self.mix < 1.0:
            require_diagonal("method.mix below 1", self.times)
        if self.scale > 1.0:
            require_diagonal("method.scale above 1", self.times)
            self.label_dropout.warn_if_never("method.scale")

    @property
    def domain(self) -> Domain:
        """What the times cover, as far as the path's velocity is finite."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        if self.scale > 1.0:
            require_labels(batch)
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, rows = times.s, times.t, times.off_rows
        x, v = self.path.at(batch.noise, batch.x1, s)
        condition = batch.condition
        if condition is not None:
            plain = self.label_dropout.draw(len(batch), now, device=s.device)
            condition = condition.drop(plain)
            if self.scale > 1.0:
                v = self._guided(nets.online, x, s, condition, v=v, plain=plain)

        u = nets.online(x, s, t, condition)

        target = v.clone()
        if len(rows):
            some = None if condition is None else condition[rows]
            with dropout_rows(rows):
                target[rows] = self.target(
                    nets.online,
                    x[rows],
                    s[rows],
                    t[rows],
                    some,
                    v=v[rows],
                    u=u[rows],
                    ratio=self.ratio(now),
                )

        error = SquaredL2()(u, target)
        return Loss(
            terms={"soflow": self.weighting(error, s, t)},
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
        ratio: float,
    ) -> Float[Tensor, " b *d"]:
        """What u is regressed on, without a graph.

        Args:
            flow_map: The network.
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row.
            v: Velocities of the pairs, guided.
            u: The network's average velocities over [s, t].
            ratio: Share of the interval before the state ahead, in (0, 1].

        Returns:
            The target, whose distance from u is the residual over the ratio.
        """

        def average(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
            return flow_map(x, s, t, condition)

        w = v if self.mix == 1.0 else torch.lerp(value_of(average, (x, s, s)), v, self.mix)
        return w if ratio == 1.0 else two_part_target(average, (x, s, t), w=w, u=u, share=ratio)

    def _guided(
        self,
        flow_map: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition,
        *,
        v: Float[Tensor, " b *d"],
        plain: Bool[Tensor, " b"],
    ) -> Float[Tensor, " b *d"]:
        """The velocity pushed away from the unconditional one, in rows that kept their label."""
        with torch.no_grad():
            null = flow_map.velocity(x, s, condition.null())
        faded = (s / self.fade).clamp(max=1.0) if self.fade else torch.ones_like(s)
        push = torch.where(plain, 0.0, (self.scale - 1.0) * faded)
        return v + rows_like(push, v) * (v - null)
