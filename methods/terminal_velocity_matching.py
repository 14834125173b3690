"""Terminal velocity matching: the end of a jump moves with the velocity of a slow copy there."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.condition import Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import ENDS_MOVE, require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, FlowMap
from .core.gap_times import GapTimes
from .core.guidance import LabelDropout, require_labels
from .core.method import AbstractMethod, Ema, Needs
from .core.motion import end_motion
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, require_range
from .core.shape import rows_like
from .core.time_law import AbstractTimeLaw, LogitNormal
from .core.times import AbstractTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class TerminalVelocityMatching(AbstractMethod):
    """Terminal velocity matching: one jump and one velocity of every pair.

        loss = |u + (t - s) d_t u - sg v_target(X(s, t)(x_s), t)|^2 / scale^2
             + |v(x_e, e) - scale v_e - (1 - scale) sg v_target(x_e, e, null)|^2 / scale^2

    The first line holds where t > s, at the moving average's velocity; the second is flow matching
    at a time e of its own on the same pair. With a scale above 1 the velocity is guided, and so are
    the jumps, which have no other.

    Reference: Zhou et al. 2025, arXiv:2511.19797v1, section 3; the laws, the moving average and
        the scale after their code.
    Convention: theirs run data -> noise; with (t', s', u') theirs, t' = 1 - s, s' = 1 - t and
        u' = -u. A logit-normal law of mean m on their times has mean -m here; lengths keep theirs.
    Differs from the paper: the network's output is not multiplied by the scale, and samples are
        not drawn at a random scale that the network is told of; both belong to the network.
    Cost: two forward passes, one of them with a derivative and its graph, and one pass of the
        target; one more pass of it with guidance.
    Fails by: states that leave the data early, before the velocity is good; a slow target, which
        holds the jumps back; attention without a derivative that can be differentiated. The scale
        is frozen at training.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t): of the whole triangle, or of jumps from noise. Rows on the diagonal
            have no first line and pay for none.
        velocity_law: Law of e.
        target: The moving average that teaches.
        scale: Scale of guidance, at least 1 and used on rows that have their label; 1 for none.
        strength: Weight of the first line beside the second, at least 0.
        weighting: Weight of each sample's error, on each line by itself.
        label_dropout: How often a sample is seen without its label, unguided.

    Raises:
        ValueError: If the scale is below 1, the strength negative anywhere, the times cover no
            jumps that this teaches, or rows on the diagonal have no weight.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = GapTimes()
    velocity_law: AbstractTimeLaw = LogitNormal(mean=0.4, std=1.0)
    target: Ema = Ema(decay=Constant(value=0.99))
    scale: float = 1.0
    strength: Schedule = Constant(value=1.0)
    weighting: AbstractWeighting = Unweighted()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        if not 1.0 <= self.scale < math.inf:
            raise ValueError(f"method.scale must be finite and at least 1, got {self.scale}")
        if self.scale > 1.0:
            self.label_dropout.warn_if_never("method.scale")
        require_range("method.strength", self.strength, 0.0, float("inf"))
        require_coverage("terminal velocity matching", self.times, ENDS_MOVE)
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """What the times cover, as far as the path's velocity is finite."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """A target network."""
        return Needs(target=self.target)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        assert nets.target is not None, "the platform builds what needs declares"
        if self.scale > 1.0:
            require_labels(batch)
        n, dtype, device = len(batch), batch.x1.dtype, batch.x1.device
        times = self.times.draw(n, now, dtype=dtype).to(device)
        e = self.velocity_law.draw(n, now.rng, dtype=dtype).to(device)
        condition, scale = batch.condition, torch.ones_like(e)
        if condition is not None:
            dropped = self.label_dropout.draw(n, now, device=device)
            condition = condition.drop(dropped)
            scale = torch.where(dropped, scale, self.scale)

        x, v = self.path.at(batch.noise, batch.x1, e)
        if self.scale > 1.0 and condition is not None:
            v = guided(nets.target, x, e, condition, v=v, scale=scale)
        velocity = SquaredL2()(nets.online.velocity(x, e, condition), v)

        terminal, off = torch.zeros_like(e), times.off_rows
        if len(off):
            x = self.path.at(batch.noise[off], batch.x1[off], times.s[off]).x
            some = None if condition is None else condition[off]
            with dropout_rows(off):
                end, rate = end_motion(nets.online, x, times.s[off], times.t[off], some)
                with torch.no_grad():
                    aim = nets.target.velocity(end.detach(), times.t[off], some)
            terminal[off] = SquaredL2()(rate, aim)
        return Loss(
            terms={
                "terminal": self.strength(now)
                * self.weighting(terminal / scale.square(), times.s, times.t),
                "velocity": self.weighting(velocity / scale.square(), e, e),
            },
            times=times.s,
        )


def guided(
    target: FlowMap,
    x: Float[Tensor, " b *d"],
    e: Float[Tensor, " b"],
    condition: Condition,
    *,
    v: Float[Tensor, " b *d"],
    scale: Float[Tensor, " b"],
) -> Float[Tensor, " b *d"]:
    """Velocity of a pair, pushed away from the target's unconditional one.

    Args:
        target: Map whose diagonal gives that velocity, without a graph.
        x: States.
        e: Times of the states.
        condition: Condition of each row.
        v: Velocity of each pair.
        scale: Scale of each row, 1 to keep its velocity.

    Returns:
        The velocity to learn.
    """
    with torch.no_grad():
        null = target.velocity(x, e, condition.null())
    share = rows_like(scale, x)
    return share * v + (1.0 - share) * null
