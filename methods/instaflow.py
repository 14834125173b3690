"""InstaFlow: one step is distilled from the pairs of a flow that reflow has straightened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from .core.adversary import Adversary
from .core.balance import AbstractBalance, FixedBalance, require_terms
from .core.coupling import AbstractCoupling, StoredPairs
from .core.distance import AbstractDistance, SquaredL2
from .core.feature_distance import FeatureDistance
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.game import ONLINE, AbstractGame
from .core.method import TEACHER, Needs, PairMix, Reading
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Piecewise, Schedule, require_range
from .core.teacher_critic import TeacherCritic
from .core.time_law import AbstractTimeLaw, Uniform

CRITIC: Final = "critic"
"""The player that tells the data of pairs from what the student makes, where there is one."""


@final
@dataclass(frozen=True, kw_only=True)
class InstaFlow(AbstractGame):
    """Distillation of a rectified flow in one step (InstaFlow), its last stage.

        loss = w D(X(0, 1)(x0), x1) + p P(X(0, 1)(x0), x1) + a A(X(0, 1)(x0))

    on pairs of noise and what the flow makes of it. D compares samples, P compares what a network
    sees in them, and A is what a critic says of them. All of InstaFlow is a sequence of stages: a
    conditional teacher, a reflow on its guided pairs, and this on the guided pairs of that. A
    straight flow is easily distilled; a curved one is not. The student runs without guidance: its
    pairs have it.

    Reference: Liu et al. 2023, arXiv:2309.06380v2; the distillation is that of Liu et al. 2022,
        arXiv:2209.03003v1, Alg. 1. The conditional reflow is ReFlow, guidance in the making of
        pairs is ``pairs.guidance``. The published models have the first two terms alone, one after
        the other.
    Convention: as theirs.
    Differs from the paper: P is left out unless it is asked for. It may be LPIPS, the distance in
        the features of the teacher of the pairs, or (``perception@method.perception=auto``) LPIPS
        where it is installed and these features elsewhere. The adversarial term is not theirs;
        its weight is a schedule unless ``balance`` is a ratio of gradients. The critic reads the
        teacher's features of noised samples, and to it the data of the pairs are real: the
        teacher's samples, and true data as far as ``generated`` mixes them in. A condition may be a
        label or tokens. On latents, which their LPIPS decodes to images first, P can be the
        teacher's features alone: no loss decodes here.
    Cost: one forward pass a step and the making of the pairs once; P costs two of the teacher; a
        critic costs one of the teacher in the student's turn, and two of it, three with a penalty,
        and one of the student in its own. Terms whose weight is zero cost nothing.
    Fails by: blur, as far as the pairs' paths are curved; the teacher's errors are learnt, and
        those of too much guidance with them; few pairs are overfitted; a critic that begins before
        the student is near its pairs.

    Attributes:
        coupling: Stored pairs; nothing else makes sense here.
        generated: Share of the rows that the teacher made from fresh noise, in [0, 1].
        distance: D.
        reconstruction: w, at least 0.
        perception: P, or None: a FeatureDistance, which asks the teacher, or a distance that needs
            no network of ours, such as LPIPS.
        perceptual: p, at least 0.
        adversary: The critic, whose ``generator`` is a; or None. A curriculum keeps a at zero for
            the first quarter.
        critic_begins: Progress from which the critic learns, in [0, 1): before a rises.
        law: Law of the noise on what the critic reads.
        balance: How the terms of the network's loss combine: by their weights, or by the ratio of
            their gradients at a parameter of the network.

    Raises:
        ValueError: If the coupling is not the stored pairs, the balance names no term, or a value
            is out of range.
    """

    coupling: AbstractCoupling = StoredPairs()
    generated: Schedule = Constant(value=1.0)
    distance: AbstractDistance = SquaredL2()
    reconstruction: Schedule = Constant(value=1.0)
    perception: FeatureDistance | AbstractDistance | None = None
    perceptual: Schedule = Constant(value=1.0)
    adversary: Adversary | None = None
    critic_begins: float = 0.2
    law: AbstractTimeLaw = Uniform()
    balance: AbstractBalance = FixedBalance()

    def __post_init__(self) -> None:
        require_terms(self.balance, ("reconstruction", "perceptual", "adversarial"))
        if not isinstance(self.coupling, StoredPairs):
            raise ValueError(
                f"InstaFlow trains on StoredPairs, got coupling {type(self.coupling).__name__}"
            )
        if not 0.0 <= self.critic_begins < 1.0:
            raise ValueError(f"method.critic_begins must be in [0, 1), got {self.critic_begins}")
        require_range("method.reconstruction", self.reconstruction, 0.0, float("inf"))
        require_range("method.perceptual", self.perceptual, 0.0, float("inf"))
        PairMix(generated=self.generated)  # refuses a share outside [0, 1]

    @property
    def domain(self) -> Domain:
        """The one step."""
        return Domain(kind=DomainKind.TILING, steps=1)

    @property
    def needs(self) -> Needs:
        """Stored pairs; the teacher where its features are read; the critic's heads if any."""
        is_read = isinstance(self.perception, FeatureDistance) or self.adversary is not None
        return Needs(
            frozen={TEACHER: Reading()} if is_read else {},
            companions={} if self.adversary is None else {CRITIC: self._heads},
            pairs=PairMix(generated=self.generated),
        )

    @property
    def switches(self) -> Mapping[str, Schedule]:
        """From when on the critic learns, where there is one: 0 before, 1 from then on."""
        if self.adversary is None:
            return {}
        if self.critic_begins == 0.0:
            return {"critic_begins": Constant(value=1.0)}
        boundaries = (self.critic_begins,)
        return {"critic_begins": Piecewise(values=(0.0, 1.0), boundaries=boundaries)}

    def _heads(self, online: FlowMap) -> nn.Module:
        del online
        assert self.adversary is not None, "it is asked for where there is one"
        return self.adversary.build()

    def players(self, now: Moment) -> tuple[str, ...]:
        """The student at every step, and after it the critic as soon as it has begun."""
        # The student moves first, so that its random numbers are the same without a critic.
        is_judged = any(begins(now) for begins in self.switches.values())
        return (ONLINE, CRITIC) if is_judged else (ONLINE,)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn."""
        if player == CRITIC:
            with torch.no_grad():
                made = nets.online.generate(batch.noise, batch.condition)
            critic = self._critic(nets, batch).critic_loss(batch.x1, made, now)
            return Loss(terms={"critic": critic})
        made = nets.online.generate(batch.noise, batch.condition)
        error = self.distance(made, batch.x1)
        terms = {"reconstruction": self.reconstruction(now) * error}
        if self.perception is not None and (weight := self.perceptual(now)):
            terms["perceptual"] = weight * self._perceived(nets, made, batch, now)
        if self.adversary is not None and self.adversary.generator(now):
            terms["adversarial"] = self._critic(nets, batch).generator_loss(made, now)
        return Loss(terms=terms, logs={"error": error.detach()})

    def _perceived(self, nets: Nets, made: Tensor, batch: Batch, now: Moment) -> Tensor:
        match self.perception:
            case FeatureDistance():
                teacher = nets.frozen[TEACHER]
                return self.perception(teacher, made, batch.x1, batch.condition, now)
            case AbstractDistance():
                return self.perception(made, batch.x1)
            case None:
                raise AssertionError("there is something to perceive with")

    def _critic(self, nets: Nets, batch: Batch) -> TeacherCritic:
        assert self.adversary is not None, "the critic is asked where there is one"
        return TeacherCritic(
            adversary=self.adversary,
            law=self.law,
            heads=nets.companions[CRITIC],
            teacher=nets.frozen[TEACHER],
            condition=batch.condition,
        )
