"""Align Your Flow: a flow map is moved along a bounded tangent until it follows its teacher."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .core.alignment import AbstractAlignment, EulerianAlignment, Field
from .core.balance import AbstractBalance, FixedBalance, require_terms
from .core.calculus import AbstractDerivative, ForwardMode
from .core.condition import Condition
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.game import ONLINE, AbstractGame
from .core.grid import UniformGrid
from .core.guidance import LabelDropout
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.length_weighting import LengthWeighting
from .core.method import TEACHER, Needs, Reading
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.relativistic import Judge, RelativisticAdversary
from .core.sampler import times_like
from .core.schedule import Constant, Linear, Schedule, require_range
from .core.shape import rows_like, sum_rows
from .core.teacher import require_readings
from .core.teacher_critic import judged
from .core.time_law import LogitNormal
from .core.times import AbstractTimes, SortedTimes
from .core.weighting import AbstractWeighting, require_weighed_diagonal

CRITIC: Final = "critic"
"""The player that compares real samples with those of chains of jumps, in adversarial tuning."""
_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class AlignYourFlow(AbstractGame):
    """Align Your Flow: the end of a jump stands still while its start moves with a teacher.

        g = b(x, s) - u + r (t - s) (b . grad_x u + d_s u),   u <- u + g / (|g| + offset)

    This is the Eulerian form (AYF-EMD); the Lagrangian one (AYF-LMD) asks for the teacher's
    velocity at the end, g = b(X(s, t)(x), t) - u - r (t - s) d_t u. Both g vanish at the teacher's
    flow map where r = 1; below, its minimum is biased by the order of 1 - r. With t = 1 alone the
    first is continuous consistency distillation, with short jumps flow matching. The teacher may
    be guided, by a weak model or by itself without labels. With an adversary a critic judges what
    chains of jumps make: a short last stage that brings in real data.

    Reference: Sabour, Fidler and Kreis 2025, arXiv:2506.14603v1, section 3.
    Convention: theirs run data -> noise; with (t', s', F') theirs, s = 1 - t', t = 1 - s' and
        u = -F'. Their loss f . sg(df/dt') has half the gradient of |u - sg(u + g)|^2 (t - s) here,
        so that their weight w' is the power 1 + p of the length for w' = (t - s)^p.
    Differs from the paper: the law of both times, the warm-up's length and the weight are choices
        of ours where the paper was not at hand, and so is r in the Lagrangian form; a law of the
        gap and the end is GapTimes. The critic reads the teacher's features of noised samples, not
        images with a network of its own; its weight is a schedule unless ``balance`` is a ratio of
        gradients; gradients pass through the whole chain, whose lengths take turns. With an
        adversary both players move at every step.
    Cost: a forward pass, a derivative (one or two) and a teacher's pass; two passes of frozen
        networks with guidance. In adversarial tuning, beside these: a chain of jumps with its
        graph, and two passes of the teacher, one with its graph; in the critic's turn a chain and
        two passes of the teacher, and two with a graph for the penalties.
    Fails by: the teacher's errors are learnt too, those of a large scale as well. With a small
        offset each row asks for a step of one length, however large its g: what learns points and
        digits here has a wide offset, no weight and a wide law of times. Lagrangian: the teacher is
        asked where the student leads, which early on is no data. Derivatives in low precision. A
        heavy adversary: modes are lost, as in any such game.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t): of the whole triangle, or of jumps to the data (Eulerian) or from
            noise (Lagrangian) alone. Rows on the diagonal pay for no derivative.
        alignment: Eulerian or Lagrangian.
        tangent: Share r of the derivative, in [0, 1]; a ramp from 0 warms up from flow matching.
        offset: What is added to the length of g, above 0. Large ones leave g as it is, but for a
            factor.
        weighting: Weight of each sample; by default its length, of which rows on the diagonal
            have none.
        derivative: How the derivative is taken.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        label_dropout: How often a sample is seen without its label, by the teacher too.
        adversary: The critic of adversarial tuning, or None.
        chains: Numbers of jumps of the chains that it judges, each at least 1, taken in turns.
        balance: How the terms of the network's loss combine: by their weights, or by the ratio of
            their gradients at a parameter of the network.

    Raises:
        ValueError: If a value is out of range, the times cover no jumps that the alignment trains,
            rows on the diagonal have no weight, or the balance names no term.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(
        law=LogitNormal(mean=0.0, std=1.6), diagonal=Constant(value=0.0)
    )
    alignment: AbstractAlignment = EulerianAlignment()
    tangent: Schedule = Linear(start=0.0, end=0.99, until=0.1)
    offset: float = 0.1
    weighting: AbstractWeighting = LengthWeighting()
    derivative: AbstractDerivative = ForwardMode()
    guidance: AbstractTeacherGuidance = Unguided()
    label_dropout: LabelDropout = LabelDropout()
    adversary: RelativisticAdversary | None = None
    chains: tuple[int, ...] = (1, 2, 4)
    balance: AbstractBalance = FixedBalance()

    def __post_init__(self) -> None:
        require_terms(self.balance, ("align_your_flow", "adversarial"))
        object.__setattr__(self, "chains", tuple(self.chains))
        require_range("method.tangent", self.tangent, 0.0, 1.0)
        rule = f"align your flow by {type(self.alignment).__name__}"
        require_coverage(rule, self.times, self.alignment.kinds)
        if self.times.meets_diagonal:
            require_weighed_diagonal(self.weighting)
        if not 0.0 < self.offset < math.inf:
            raise ValueError(f"method.offset must be finite and above 0, got {self.offset}")
        are_counts = all(isinstance(jumps, int) and jumps >= 1 for jumps in self.chains)
        if not (self.chains and are_counts):
            raise ValueError(
                f"method.chains must hold whole numbers of at least 1, got {self.chains}"
            )

    @property
    def domain(self) -> Domain:
        """What the times cover."""
        return trained_domain(self.times, path=_PATH, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """A teacher and what guides it, and the critic's heads if there is one."""
        return self.guidance.needs(
            Reading(on=Domain(kind=DomainKind.DIAGONAL)),
            companions={} if self.adversary is None else {CRITIC: self._heads},
        )

    def _heads(self, online: FlowMap) -> nn.Module:
        del online
        assert self.adversary is not None, "it is asked for where there is one"
        return self.adversary.build()

    def players(self, now: Moment) -> tuple[str, ...]:
        """The network at every step, after the critic if there is one."""
        del now
        return (ONLINE,) if self.adversary is None else (CRITIC, ONLINE)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn."""
        require_readings(self.needs, nets)
        adversary = self.adversary
        condition = self.label_dropout.keep(batch, now)
        condition = self.guidance.tell(condition, batch, now)
        batch = replace(batch, condition=condition)
        if player == CRITIC:
            assert adversary is not None, "the critic moves where there is one"
            with torch.no_grad():
                made = self._chained(nets, batch, now)
            judge = self._judge(nets, condition)
            return Loss(terms={"critic": adversary.critic_loss(judge, batch.x1, made, now)})
        aligned = self._alignment_loss(nets, batch, now)
        if adversary is None:
            return aligned
        made = self._chained(nets, batch, now)
        fooling = adversary.generator_loss(self._judge(nets, condition), batch.x1, made, now)
        return replace(aligned, terms={**aligned.terms, "adversarial": fooling})

    def bounded(self, g: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """The change of u, shorter than 1: g / (|g| + offset)."""
        return g / rows_like(g.flatten(1).norm(dim=1) + self.offset, g)

    def _alignment_loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, share = times.s, times.t, self.tangent(now)
        x = _PATH.at(batch.noise, batch.x1, s).x
        condition = batch.condition
        u = nets.online(x, s, t, condition)

        with torch.no_grad():
            own = u.detach().to(x.dtype)
            v = self.alignment.velocity(self._field(nets, condition), (x, s, t), u=own)
            g = v - own
        rows = times.off_rows
        if share > 0.0 and len(rows):
            some = None if condition is None else condition[rows]
            with dropout_rows(rows):
                g[rows] += share * self.alignment.bend(
                    lambda x, s, t: nets.online(x, s, t, some),
                    v[rows],
                    (x[rows], s[rows], t[rows]),
                    u=u[rows],
                    derivative=self.derivative,
                )
        error = SquaredL2()(u, own + self.bounded(g))
        return Loss(
            terms={"align_your_flow": self.weighting(error, s, t)},
            logs={"error": sum_rows(g.square())},
            times=s,
        )

    def _field(self, nets: Nets, condition: Condition | None) -> Field:
        """The velocity that is followed, without a graph."""
        return lambda x, t: self.guidance.velocity(nets, x, t, condition)

    def _chained(self, nets: Nets, batch: Batch, now: Moment) -> Float[Tensor, " b *d"]:
        """What a chain of jumps makes of the batch's noise."""
        x = batch.noise
        steps = self.chains[now.step % len(self.chains)]
        for s, t in pairwise(UniformGrid(steps=steps).times(0.0, 1.0)):
            x = nets.online.jump(x, times_like(s, x), times_like(t, x), batch.condition)
        return x

    def _judge(self, nets: Nets, condition: Condition | None) -> Judge:
        """The critic: its heads on the teacher's features."""
        heads, teacher = nets.companions[CRITIC], nets.frozen[TEACHER]
        told = self.guidance.of_teacher(condition)
        return lambda x, t: judged(heads, teacher, x, t, told)
