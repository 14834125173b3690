"""Mean flow: one network learns the average velocity over every interval."""

from dataclasses import dataclass
from typing import final

import torch

from .core.calculus import AbstractDerivative, ForwardMode
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import STARTS_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain
from .core.guidance import Guidance, LabelDropout
from .core.method import AbstractMethod, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, require_range
from .core.shape import rows_like
from .core.times import AbstractTimes, SortedTimes, require_diagonal
from .core.weighting import AbstractWeighting, AdaptivePower, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class MeanFlow(AbstractMethod):
    """Mean flow: regress the average velocity on its own Eulerian identity.

        u(x, s, t) = v(x, s) + (t - s) (v . grad_x u + d u / d s)

    The bracket is the derivative of u along the path, one forward-mode pass. The right side is
    held constant. On the diagonal s = t this is flow matching, and those rows pay for no
    derivative.

    Reference: Geng et al. 2025, arXiv:2505.13447v1, Eq. (6), Alg. 1 and section 4.2 for guidance.
    Convention: theirs runs data -> noise; with (t', r', v', u') theirs, t' = 1 - s, r' = 1 - t,
        v' = -v, u' = -u. Both sides change sign, so the identity keeps its form with + for -.
        A logit-normal law of mean m on their times has mean -m on ours.
    Differs from the paper: the prediction is a forward pass of its own, and the derivative is taken
        without a graph on the rows off the diagonal alone. The value is the same.
    Cost: one forward pass a step, and a derivative (one or two) on the rows off the diagonal; with
        guidance one more without label, and with its ``kappa`` another with it, on all rows and
        without a graph.
    Fails by: slow early progress at one step; spikes when the time embedding is steep; conditional
        noise in the target, which the adaptive weight tames.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t): of the whole triangle, or of jumps to the data. Their ``ratio``, the
            chance that r differs from t, is 1 - diagonal.
        weighting: Weight of each sample; the error is a sum over dimensions.
        tangent: Share of the derivative in the target, in [0, 1]; a ramp from 0 to 1 warms up
            from flow matching. Below 1 the minimum is biased.
        derivative: How the derivative along the path is taken.
        label_dropout: How often a sample is seen without its label.
        guidance: Classifier-free guidance in the target. Without label dropout the network never
            learns the unconditional velocity that it needs, and construction warns.

    Raises:
        ValueError: If the tangent schedule leaves [0, 1], the times cover no jumps that this
            teaches, rows on the diagonal have no weight, or no row teaches the velocity that
            guidance reads.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes()
    weighting: AbstractWeighting = AdaptivePower()
    tangent: Schedule = Constant(value=1.0)
    derivative: AbstractDerivative = ForwardMode()
    label_dropout: LabelDropout = LabelDropout()
    guidance: Guidance = Guidance()

    def __post_init__(self) -> None:
        require_range("method.tangent", self.tangent, 0.0, 1.0)
        require_coverage("mean flow", self.times, STARTS_MOVE)
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

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, rows = times.s, times.t, times.off_rows
        x, v = self.path.at(batch.noise, batch.x1, s)
        v, condition = self.guidance.apply(
            nets, batch, now, dropout=self.label_dropout, x=x, v=v, s=s
        )

        u = nets.online(x, s, t, condition)

        target = v.clone()
        if len(rows):
            some = None if condition is None else condition[rows]
            with dropout_rows(rows):
                du_ds = self.derivative.along(
                    lambda x, s, t: nets.online(x, s, t, some),
                    (x[rows], s[rows], t[rows]),
                    (v[rows], torch.ones_like(s[rows]), torch.zeros_like(t[rows])),
                    value=u[rows],
                )
            gap = self.tangent(now) * (t - s)[rows]
            target[rows] += rows_like(gap, du_ds) * du_ds

        error = SquaredL2()(u, target)
        return Loss(
            terms={"mean_flow": self.weighting(error, s, t)},
            logs={"error": error.detach()},
            times=s,
        )
