"""Consistency trajectory models: jumps over any interval of a teacher's trajectory agree."""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .core.adversary import Adversary
from .core.balance import AbstractBalance, FixedBalance, require_terms
from .core.count import require_whole
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.game import ONLINE, AbstractGame
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.method import TEACHER, Ema, Needs, Reading
from .core.pair_times import AbstractSpacing, KarrasSpacing
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, require_range
from .core.shape import sum_rows
from .core.solver_step import AbstractSolverStep, SigmaHeunStep
from .core.teacher import require_readings
from .core.teacher_critic import TeacherCritic
from .core.time_law import AbstractTimeLaw, LogitNormal
from .core.weighting import AbstractWeighting, DenoiserWeighting, require_weighed_diagonal

CRITIC: Final = "critic"
"""The player that tells real samples from jumped ones, where there is an adversary."""
_PATH: Final = LinearPath()


class Walk(NamedTuple):
    """Where each row starts on a grid, how far the teacher walks it, and where its jump ends."""

    start: Tensor
    middle: Tensor
    end: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class TrajectoryTimes:
    """Three times s < m <= t on a grid, as indices: the teacher leads from s to m.

    The start is uniform over the grid, the end uniform over what lies behind it, and the walk
    uniform over its lengths up to the longest and up to the end.

    Attributes:
        spacing: How the grid lies.
        steps: Intervals of the grid, at least 1.
        longest: Intervals that the teacher walks at most, from 1 to ``steps``.

    Raises:
        ValueError: If a count is out of range.
    """

    spacing: AbstractSpacing = KarrasSpacing()
    steps: int = 17
    longest: int = 3

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)
        require_whole("longest", self.longest)
        if not 1 <= self.longest <= self.steps:
            raise ValueError(
                "times need 1 <= longest <= steps, "
                f"got longest {self.longest} and steps {self.steps}"
            )

    def draw(self, n: int, now: Moment) -> Walk:
        """Indices of n rows, independent of each other."""
        start = now.rng.integers(n, below=self.steps)
        end = start + 1 + _below(self.steps - start, now)
        middle = start + 1 + _below((end - start).clamp(max=self.longest), now)
        return Walk(start=start, middle=middle, end=end)

    def knots(self, like: Tensor) -> Float[Tensor, " n"]:
        """The grid's times."""
        return like.new_tensor(self.spacing.knots(self.steps))


def _below(count: Tensor, now: Moment) -> Tensor:
    """An integer in [0, count) for each row."""
    u = now.rng.uniform(len(count), dtype=torch.float64)
    return torch.minimum((u * count).long(), count - 1)


@final
@dataclass(frozen=True, kw_only=True)
class ConsistencyTrajectory(AbstractGame):
    """Consistency trajectory models: a jump equals a teacher's walk and the jump that is left.

        X-(t, 1)(X(s, t)(x))  =  X-(t, 1)(sg X(m, t)(walk(s, m)(x)))      s < m <= t

    Both sides are led on to the data by a moving average X-, through which gradients flow on the
    left: there all intervals are compared in one space. Denoising keeps the diagonal a velocity,
    which is the teacher's if both pair noise with data alike. With m the next time this is local,
    with m = t it is plain distillation of the solver, with t = 1 consistency distillation.

    Reference: Kim et al. 2023, arXiv:2310.02279v3, Alg. 1; the law of the walk and the weights
        after their code.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t; G(x, s, t) is the
        jump, and their g is the data that its average velocity points to.
    Differs from the paper: a walk has its own length in each row instead of one for the batch, and
        shorter ones, with all lengths alike; weights of the terms are schedules unless ``balance``
        is their ratio of gradients, GradientRatio; the default distance is a sum of squares over
        dimensions, theirs is LPIPS, which is ``perception@method.distance=lpips`` with a side of
        224 where it is installed; the default law of the diagonal is half of theirs, which is
        NoisyMixture; the critic reads the teacher's features of noised
        samples instead of downloaded classifiers'; the boundary is the data in place of sigma_min.
    Cost: three forward passes of the network and two of its average a step, twice ``longest`` of
        the teacher by Heun's rule; twice these, and two more, of a guided teacher. A critic adds
        one pass of the teacher, with its graph, to the network's turn, and takes every other
        step: one pass of the network, one of its average and two of the teacher, three with a
        penalty.
    Fails by: three networks in memory; without denoising the diagonal drifts and short jumps blur;
        long walks cost more than they teach; the adversarial term's balance.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Where jumps begin and end, and how far the teacher leads.
        step: The teacher's solver.
        target: The moving average that leads on to the data; with a critic it moves when the
            network does, every other step, as in their code.
        distance: How both sides are compared.
        denoising: Weight of flow matching on the diagonal, at least 0; towards the teacher's
            velocity if it is guided, since the pairs lead elsewhere then.
        law: Law of the diagonal times, and of the noise on what the critic judges.
        weighting: Weight of a diagonal row.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        adversary: The critic on the teacher's features, or None.
        balance: How the terms of the network's loss combine: by their weights, or by the ratio of
            their gradients at a parameter of the network.

    Raises:
        ValueError: If the weight is negative, the balance names no term, or a grid that begins at
            pure noise meets a step that is infinite there.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: TrajectoryTimes = TrajectoryTimes()
    step: AbstractSolverStep = SigmaHeunStep()
    target: Ema = Ema(decay=Constant(value=0.999))
    distance: AbstractDistance = SquaredL2()
    denoising: Schedule = Constant(value=1.0)
    law: AbstractTimeLaw = LogitNormal(mean=1.2, std=1.2)
    weighting: AbstractWeighting = DenoiserWeighting()
    guidance: AbstractTeacherGuidance = Unguided()
    adversary: Adversary | None = None
    balance: AbstractBalance = FixedBalance()

    def __post_init__(self) -> None:
        require_terms(self.balance, ("consistency", "denoising", "adversarial"))
        require_range("method.denoising", self.denoising, 0.0, float("inf"))
        require_weighed_diagonal(self.weighting)
        if self.times.spacing.t_lo == 0.0 and isinstance(self.step, SigmaHeunStep):
            raise ValueError(
                "a step in the noise level needs a grid that begins above t = 0, "
                f"got {type(self.times.spacing).__name__}"
            )

    @property
    def domain(self) -> Domain:
        """All intervals from the first time of the grid on."""
        return Domain(
            kind=DomainKind.TRIANGLE,
            t_lo=self.times.spacing.t_lo,
            has_paired_noise=self.coupling.is_paired,
        )

    @property
    def needs(self) -> Needs:
        """A target network, a teacher's velocity with what guides it, and the critic's heads."""
        companions = {} if self.adversary is None else {CRITIC: self._heads}
        on = Domain(kind=DomainKind.DIAGONAL, t_lo=self.times.spacing.t_lo)
        pairing = None if self.guidance.is_on else self.coupling.is_paired
        reading = Reading(on=on, pairing=pairing)
        return self.guidance.needs(reading, target=self.target, companions=companions)

    def _heads(self, online: FlowMap) -> nn.Module:
        del online
        assert self.adversary is not None, "it is asked for where there is one"
        return self.adversary.build()

    def players(self, now: Moment) -> tuple[str, ...]:
        """The network at every step; with a critic, both take turns."""
        if self.adversary is None:
            return (ONLINE,)
        return (CRITIC,) if now.step % 2 == 0 else (ONLINE,)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn."""
        require_readings(self.needs, nets)
        teacher = self.guidance.teacher(nets)
        walk = self.times.draw(len(batch), now)
        condition = self.guidance.tell(batch.condition, batch, now)
        batch = replace(batch, condition=condition)
        if player == CRITIC:
            return Loss(terms={"critic": self._critic_loss(nets, batch, now, walk)})
        knots = self.times.knots(batch.x1)
        s, t = knots[walk.start], knots[walk.end]
        x = _PATH.at(batch.noise, batch.x1, s).x
        estimate = self._landed(nets, x, s, t, batch)
        with torch.no_grad():
            walked = self.walked(teacher, x, walk, batch)
            goal = self._landed(nets, walked, knots[walk.middle], t, batch)
        error = self.distance(estimate, goal)
        terms = {
            "consistency": error,
            "denoising": self.denoising(now) * self._denoising_loss(nets, batch, now),
        }
        if self.adversary is not None:
            terms["adversarial"] = self._critic(nets, batch).generator_loss(estimate, now)
        return Loss(terms=terms, logs={"error": error.detach()}, times=s)

    def walked(
        self, teacher: FlowMap, x: Float[Tensor, " b *d"], walk: Walk, batch: Batch
    ) -> Float[Tensor, " b *d"]:
        """Each row after the teacher's walk; rows that have arrived stand still.

        Args:
            teacher: The teacher.
            x: States at the starts.
            walk: From where to where.
            batch: The rows' conditions.
        """
        knots = self.times.knots(x)
        for taken in range(self.times.longest):
            here = torch.minimum(walk.start + taken, walk.middle)
            there = torch.minimum(here + 1, walk.middle)
            x = self.step(teacher, x, knots[here], knots[there], batch.condition).to(x.dtype)
        return x

    def _landed(self, nets: Nets, x: Tensor, s: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """The data to which the average leads from where the network jumps to."""
        assert nets.target is not None, "the platform builds what needs declares"
        reached = nets.online.jump(x, s, t, batch.condition)
        return nets.target.jump(reached, t, torch.ones_like(t), batch.condition)

    def _denoising_loss(self, nets: Nets, batch: Batch, now: Moment) -> Float[Tensor, " b"]:
        t = self.law.draw(len(batch), now.rng, dtype=batch.x1.dtype).to(batch.x1.device)
        x, v = _PATH.at(batch.noise, batch.x1, t)
        if self.guidance.is_on:
            v = self.guidance.velocity(nets, x, t, batch.condition)
        u = nets.online.velocity(x, t, batch.condition)
        return self.weighting(sum_rows((u - v).square()), t, t)

    def _critic_loss(
        self, nets: Nets, batch: Batch, now: Moment, walk: Walk
    ) -> Float[Tensor, " b"]:
        knots = self.times.knots(batch.x1)
        s, t = knots[walk.start], knots[walk.end]
        with torch.no_grad():
            made = self._landed(nets, _PATH.at(batch.noise, batch.x1, s).x, s, t, batch)
        return self._critic(nets, batch).critic_loss(batch.x1, made, now)

    def _critic(self, nets: Nets, batch: Batch) -> TeacherCritic:
        assert self.adversary is not None, "the critic is asked where there is one"
        return TeacherCritic(
            adversary=self.adversary,
            law=self.law,
            heads=nets.companions[CRITIC],
            teacher=nets.frozen[TEACHER],
            condition=self.guidance.of_teacher(batch.condition),
        )
