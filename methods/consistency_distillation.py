"""Consistency distillation: a teacher's step along its flow must not change where it leads."""

from dataclasses import dataclass
from typing import Final, final

import torch

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.method import AbstractMethod, Ema, Needs, Reading
from .core.noise_weighting import require_weight_at
from .core.pair_times import GridTimes
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant
from .core.solver_step import AbstractSolverStep, SigmaHeunStep
from .core.teacher import require_readings
from .core.weighting import AbstractWeighting, Unweighted

_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class ConsistencyDistillation(AbstractMethod):
    """Consistency distillation: the jump to data from s equals that from the teacher's next state.

        f(x_s, s) = f(x', t)   with f(x, s) = X(s, 1)(x), x' one solver step from x_s to t

    Times are neighbours on a grid. The right side comes from a moving average of the network and is
    held constant. No noise is left in the target, only the solver's error: the minimum is the map
    that the teacher's solver makes on this grid.

    Reference: Song et al. 2023, arXiv:2303.01469v2, Alg. 2.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t; their f, n and N are
        the jump to data, the later time t and the number of steps plus 1.
    Differs from the paper: the boundary is the data themselves in place of sigma_min, where every
        flow map is the identity. The default distance is a sum over dimensions, where theirs is a
        mean: learning rates of optimizers that see the size of a gradient, and the norm at which it
        is clipped, are d times others. LPIPS, the paper's best, is a distance for images that has
        to be installed: ``perception@method.distance=lpips``, theirs with a side of 224. The
        target is in evaluation mode; theirs has no dropout to share.
    Cost: one forward pass a step, one of the target network, and one (Euler) or two (Heun) of the
        teacher, each of which is two if it is guided.
    Fails by: the teacher's errors and its solver's are learnt too; Heun's rule overshoots on few
        steps.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Neighbouring times, and the grid's steps.
        step: The teacher's solver.
        target: The moving average that teaches; a decay of 0 is the network itself.
        distance: How both jumps are compared.
        weighting: Weight of each sample, from its error and its two times.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        label_dropout: How often a sample is seen without its label, by the teacher too.

    Raises:
        ValueError: If a grid that begins at pure noise meets a step that is infinite there, or a
            weight that is none.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: GridTimes = GridTimes(steps=Constant(value=17.0))
    step: AbstractSolverStep = SigmaHeunStep()
    target: Ema = Ema(decay=Constant(value=0.95))
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()
    guidance: AbstractTeacherGuidance = Unguided()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        if self.times.t_lo == 0.0 and isinstance(self.step, SigmaHeunStep):
            raise ValueError(
                "a step in the noise level needs a grid that begins above t = 0, "
                f"got {type(self.times.spacing).__name__}"
            )
        require_weight_at(self.times.t_lo, self.weighting)

    @property
    def domain(self) -> Domain:
        """Jumps to the data from the first time of the grid on."""
        return Domain(
            kind=DomainKind.TO_DATA, t_lo=self.times.t_lo, has_paired_noise=self.coupling.is_paired
        )

    @property
    def needs(self) -> Needs:
        """A target network, and a teacher's velocity with what guides it."""
        on = Domain(kind=DomainKind.DIAGONAL, t_lo=self.times.t_lo)
        return self.guidance.needs(Reading(on=on), target=self.target)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        assert nets.target is not None, "the platform builds what needs declares"
        require_readings(self.needs, nets)
        teacher = self.guidance.teacher(nets)
        pair = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t, data = pair.s, pair.t, torch.ones_like(pair.s)
        condition = self.label_dropout.keep(batch, now)
        condition = self.guidance.tell(condition, batch, now)

        x_s = _PATH.at(batch.noise, batch.x1, s).x
        here = nets.online.jump(x_s, s, data, condition)
        with torch.no_grad():
            x_t = self.step(teacher, x_s, s, t, condition).to(x_s.dtype)
            there = nets.target.jump(x_t, t, data, condition)

        error = self.distance(here, there)
        return Loss(
            terms={"consistency_distillation": self.weighting(error, s, t)},
            logs={"error": error.detach()},
            times=s,
        )
