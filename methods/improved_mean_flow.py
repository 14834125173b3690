"""Improved mean flow: the velocity is regressed, through an average velocity that knows its own."""

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.calculus import AbstractDerivative, ForwardMode
from .core.condition import UNGUIDED, Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import BOTH_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain
from .core.guidance import GuidanceScales, LabelDropout, require_labels
from .core.method import AbstractMethod, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant
from .core.shape import rows_like
from .core.times import AbstractTimes, SortedTimes, require_diagonal
from .core.weighting import AbstractWeighting, AdaptivePower, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class ImprovedMeanFlow(AbstractMethod):
    """Improved mean flow: a compound of the average velocity and its derivative is the velocity.

        V(x, s, t) = u - (t - s) (u(x, s, s) . grad_x u + d u / d s),   loss = |V - v|^2

    The bracket is held constant. It is the derivative along the network's own velocity, not along
    that of the pair as in mean flow: V depends on the state alone, and the noise of the loss is
    that of flow matching. Guidance is an input of the network: each labelled row draws a scale w
    and is regressed on v + (1 - 1/w) (u(x, s, s | label, w) - u(x, s, s | null)).

    Reference: Geng et al. 2025, arXiv:2512.02012v1, sections 4.1 and 4.2 and Alg. 1.
    Convention: theirs runs data -> noise; with (t', r', v', u') theirs, t' = 1 - s, r' = 1 - t,
        v' = -v, u' = -u. An interval of guidance [a, b] of theirs is [1 - b, 1 - a] here.
    Differs from the paper: the network's own velocity is its diagonal, as in Alg. 1; the auxiliary
        head of their largest models, with a loss of its own, is left out. The interval of guidance
        is a setting, the same for all rows, while theirs is drawn and a further input. A row
        without its label is given the scale 1.
    Cost: one forward pass a step, and on the rows off the diagonal one more and a derivative (one
        or two); with guidance one more without label.
    Fails by: a poor diagonal, which misleads the derivative before it has been learnt; scales that
        were never drawn; spikes when the time embedding is steep.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t) on the whole triangle. Its short jumps teach the diagonal, and so the
            network's own velocity, where it has no rows there.
        weighting: Weight of each sample; the error is a sum over dimensions.
        derivative: How the derivative along the path is taken.
        label_dropout: How often a sample is seen without its label. Without it the network never
            learns the unconditional velocity that guidance needs, and construction warns.
        guidance: Law of the guidance scale; the paper's greatest is 8. Above 1 the network must be
            built to take one.

    Raises:
        ValueError: If a field is refused by its class, the times do not cover the triangle, rows
            on the diagonal have no weight, or guidance meets times without a diagonal.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(diagonal=Constant(value=0.5))
    weighting: AbstractWeighting = AdaptivePower()
    derivative: AbstractDerivative = ForwardMode()
    label_dropout: LabelDropout = LabelDropout()
    guidance: GuidanceScales = GuidanceScales()

    def __post_init__(self) -> None:
        require_coverage("improved mean flow", self.times, BOTH_MOVE)
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
        """Nothing but the network, which takes a guidance scale if there is guidance."""
        return Needs(scales=(UNGUIDED, self.guidance.highest) if self.guidance.is_on else None)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, rows = times.s, times.t, times.off_rows
        x, v = self.path.at(batch.noise, batch.x1, s)
        condition = self._condition(batch, now, like=s)

        u = nets.online(x, s, t, condition)

        own, correction = u.detach().to(v.dtype, copy=True), torch.zeros_like(v)
        if len(rows):
            some = None if condition is None else condition[rows]
            with dropout_rows(rows):
                with torch.no_grad():
                    own[rows] = nets.online.velocity(x[rows], s[rows], some).to(v.dtype)
                du_ds = self.derivative.along(
                    lambda x, s, t: nets.online(x, s, t, some),
                    (x[rows], s[rows], t[rows]),
                    (own[rows], torch.ones_like(s[rows]), torch.zeros_like(t[rows])),
                    value=u[rows],
                )
            correction[rows] = rows_like((t - s)[rows], du_ds) * du_ds
        if condition is not None and condition.guidance is not None:
            with torch.no_grad():
                null = nets.online.velocity(x, s, condition.null())
            v = self.guidance.target(v, s, condition.guidance, own=own, null=null)

        error = SquaredL2()(u - correction, v)
        return Loss(
            terms={"improved_mean_flow": self.weighting(error, s, t)},
            logs={"error": error.detach()},
            times=s,
        )

    def _condition(
        self, batch: Batch, now: Moment, *, like: Float[Tensor, " b"]
    ) -> Condition | None:
        """The labels that were kept, and the guidance scale of each row."""
        if self.guidance.is_on:
            scale = self.guidance.draw(len(batch), now, like=like)
            batch = replace(batch, condition=replace(require_labels(batch), guidance=scale))
        return self.label_dropout.keep(batch, now)
