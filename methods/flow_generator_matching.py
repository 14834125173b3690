"""Flow generator matching: a one-step generator whose own flow is led to its teacher's."""

import copy
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor, nn

from .core.count import require_whole
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.flow_map import Domain, DomainKind, FlowMap, Velocity
from .core.game import ONLINE, AbstractGame
from .core.generator_form import AbstractGeneratorForm, ScoreIdentity
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.method import Needs, Reading
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.shape import sum_rows
from .core.times import DiagonalTimes

FAKE: Final = "fake"
"""The player that learns the velocity of what the generator makes."""


@final
@dataclass(frozen=True, kw_only=True)
class FlowGeneratorMatching(AbstractGame):
    """Flow generator matching: the flow of what a generator makes must be the teacher's flow.

        L = E |v_teacher(x, t) - v_generator(x, t)|^2   at x = alpha x0 + beta G(z), fresh x0

    v_generator has no closed form. A second network, the fake velocity, learns it by flow matching
    on generated samples; for any f, E f . v_generator = E f . u with u the velocity of the path,
    which turns L into a loss whose gradient in G needs the fake velocity's values alone. Neither
    pairs nor trajectories of the teacher are needed, and in the plain form no data. The teacher's
    own noise must have been independent of its data, as x0 is here.

    Reference: Huang et al. 2024, arXiv:2410.19310v1, Eq. (4.11) and Alg. 1; real data in
        the fake velocity: Kornilov et al. 2025, arXiv:2509.22459v1.
    Convention: theirs runs data -> noise; with (t', v') theirs, t' = 1 - t and v' = -v.
    Differs from the paper: the generator is the network at (s, t) = (0, 1) and not at a fixed noise
        level between; the fake velocity starts as a copy of the generator's initial weights, which
        are the teacher's if the run names it as its initial model.
    Cost: at every step one forward pass of the generator and one step of the fake velocity; at
        the generator's steps, one pass more of each and of the teacher, two if it is guided.
    Fails by: a generator that starts as its teacher makes nothing but the mean of the data at
        first; a fake velocity that lags behind biases the gradient; the teacher's errors are
        learnt too.

    Attributes:
        path: Interpolant between noise and generated data; the teacher's own.
        times: Law of the time; times outside the teacher's range are moved to its ends.
        form: The losses, from the identity.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        fake_steps: Steps of the fake velocity for each of the generator, at least 1.

    Raises:
        ValueError: If there are no steps of the fake velocity, or a guided teacher meets a form
            that uses data.
    """

    path: AbstractPath = LinearPath()
    times: DiagonalTimes = DiagonalTimes()
    form: AbstractGeneratorForm = ScoreIdentity()
    guidance: AbstractTeacherGuidance = Unguided()
    fake_steps: int = 5

    def __post_init__(self) -> None:
        require_whole("method.fake_steps", self.fake_steps, least=1)
        if self.form.uses_data and self.guidance.is_on:
            raise ValueError(
                "a form that uses data takes the teacher for their velocity, which a guided one is "
                f"not: set method.form.alpha and beta to 1, got {self.form}"
            )

    @property
    def coupling(self) -> AbstractCoupling:
        """The generator's noise is its own: nothing pairs it with data."""
        return IndependentCoupling()

    @property
    def domain(self) -> Domain:
        """The one jump from noise to data."""
        return Domain(kind=DomainKind.TILING, steps=1, path=self.path.name)

    @property
    def needs(self) -> Needs:
        """A teacher with what guides it, and the fake velocity as a companion."""
        return self.guidance.needs(Reading(pairing=False), companions={FAKE: _copied})

    def players(self, now: Moment) -> tuple[str, ...]:
        """The fake velocity at every step, the generator at some."""
        return (FAKE, ONLINE) if (now.step + 1) % self.fake_steps == 0 else (FAKE,)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn."""
        teacher = self.guidance.teacher(nets)
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        t = t.clamp(teacher.domain.t_lo, teacher.domain.t_hi)
        x0 = now.rng.normal(*batch.x1.shape, dtype=batch.x1.dtype).to(batch.x1.device)
        condition = self.guidance.tell(batch.condition, batch, now)
        batch = replace(batch, condition=condition)
        if player == ONLINE:
            return self._generator_loss(nets, batch, x0, t)
        return self._fake_loss(nets, batch, x0, t)

    def _generator_loss(self, nets: Nets, batch: Batch, x0: Tensor, t: Tensor) -> Loss:
        x, u = self.path.at(x0, nets.online.generate(batch.noise, batch.condition), t)
        # Their difference is small, and must not be rounded where a network runs in half precision.
        teacher = self.guidance.teacher(nets).velocity(x, t, batch.condition).to(x.dtype)
        fake = _fake(nets).velocity(x, t, batch.condition).to(x.dtype)
        error = sum_rows((teacher - fake).detach().square())
        return Loss(
            terms={"generator": self.form.generator(teacher, fake, u)},
            logs={"error": error},
            times=t,
        )

    def _fake_loss(self, nets: Nets, batch: Batch, x0: Tensor, t: Tensor) -> Loss:
        with torch.no_grad():
            x1 = nets.online.generate(batch.noise, batch.condition)
        fake = _fake(nets)
        x, u = self.path.at(x0, x1, t)
        error = self.form.generated(fake.velocity(x, t, batch.condition), u)
        if self.form.uses_data:
            x, u = self.path.at(x0, batch.x1, t)
            error = error + self.form.real(fake.velocity(x, t, batch.condition), u)
        return Loss(terms={"fake": error}, times=t)


def _copied(online: FlowMap) -> nn.Module:
    return Velocity(copy.deepcopy(online))


def _fake(nets: Nets) -> FlowMap:
    fake = nets.companions[FAKE]
    assert isinstance(fake, FlowMap), "the platform builds what needs declares"
    return fake
