"""Progressive distillation: a student's step equals two steps of a teacher that stays fixed."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.condition import Condition
from .core.count import require_whole
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import SquaredL2
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.guidance import LabelDropout
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.method import AbstractMethod, Needs, Reading, View
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.shape import rows_like
from .core.teacher import require_readings
from .core.times import TilingTimes
from .core.weighting import AbstractWeighting, TruncatedSnr


@final
@dataclass(frozen=True, kw_only=True)
class ProgressiveDistillation(AbstractMethod):
    """Progressive distillation: one step of the student is two steps of its frozen teacher.

        u(x, s, t) = (u'(x, s, m) + u'(X'(s, m)(x), m, t)) / 2   with m = (s + t) / 2

    on the jumps of length 1 / steps that tile [0, 1]; u' and X' are the teacher's. Each stage of a
    sequence takes the student before it as teacher and has half as many steps, down to one. The
    first teacher may be a velocity, whose steps are Euler's; then all stages together learn that
    solver and not the flow.

    Reference: Salimans and Ho 2022, arXiv:2202.00512v2, Alg. 2, and section 4 for the weight.
    Convention: theirs runs data -> noise, on a cosine schedule that preserves variance. A step of
        DDIM is an Euler step on the linear path, from t' = 1 - s there.
    Differs from the paper: the network sees the end time too, the times are equally spaced, and
        errors are those of the velocity, with the paper's weight translated. The last step of a
        stage needs no rule of its own, for the linear path's velocity is finite at the data. The
        teacher may take more than two steps at a time.
    Cost: one forward pass of the student and two of the teacher a step, in each stage; four of a
        guided teacher.
    Fails by: errors of every stage add up; a first teacher of few Euler steps is a poor one, whose
        straightened modes all later stages inherit; the last stages are the hardest.

    Attributes:
        path: Interpolant between noise and data, which decides where the teacher is asked.
        coupling: How noise is paired with data within the batch.
        times: How many steps the student takes from noise to data.
        pieces: Steps of the teacher in one of the student, at least 2.
        view: Whether the teacher's steps are its jumps, or Euler steps of its velocity.
        weighting: Weight of each sample.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        label_dropout: How often student and teacher both see a sample without its label.

    Raises:
        ValueError: If there are fewer than two pieces or no whole number, the teacher is looked at
            in neither way, or the path's velocity is infinite at the data.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: TilingTimes = TilingTimes()
    pieces: int = 2
    view: View = View.JUMP
    weighting: AbstractWeighting = TruncatedSnr()
    guidance: AbstractTeacherGuidance = Unguided()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", View(self.view))
        if self.view is View.GUIDED:
            raise ValueError(f"method.view must be jump or velocity, got {self.view}")
        require_whole("method.pieces", self.pieces, least=2)
        self.guidance.frozen(self._reading)  # refuses jumps where it needs a velocity
        if self.path.t_hi < 1.0:
            raise ValueError(
                "steps that tile [0, 1] need a path whose velocity is finite up to the data, "
                f"got {type(self.path).__name__}"
            )

    @property
    def domain(self) -> Domain:
        """The student's steps and nothing else."""
        return Domain(kind=DomainKind.TILING, steps=self.times.steps, path=self.path.name)

    @property
    def needs(self) -> Needs:
        """A teacher, and what guides it."""
        return self.guidance.needs(self._reading)

    @property
    def _reading(self) -> Reading:
        """The teacher's own steps, or its velocity where each of them begins."""
        steps = self.times.steps * self.pieces
        if self.view is View.JUMP:
            return Reading(view=View.JUMP, on=Domain(kind=DomainKind.TILING, steps=steps))
        return Reading(on=Domain(kind=DomainKind.DIAGONAL, t_hi=1.0 - 1.0 / steps))

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        require_readings(self.needs, nets)
        teacher = self.guidance.teacher(nets)
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t = times.s, times.t
        x, _ = self.path.at(batch.noise, batch.x1, s)

        condition = self.label_dropout.keep(batch, now)
        condition = self.guidance.tell(condition, batch, now)

        with torch.no_grad():
            target = self.target(teacher, x, s, t, condition)
        error = SquaredL2()(nets.online(x, s, t, condition), target)
        return Loss(terms={"progressive_distillation": self.weighting(error, s, t)}, times=s)

    def target(
        self,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity of the teacher's steps, each from where the one before it ends.

        Args:
            teacher: Map that takes the steps.
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row.

        Returns:
            The velocity that one step of the student should have.
        """
        length, total = (t - s) / self.pieces, torch.zeros_like(x)
        for piece in range(self.pieces):
            begin, end = s + piece * length, s + (piece + 1) * length
            if self.view is View.JUMP:
                u = teacher(x, begin, end, condition)
            else:
                u = teacher.velocity(x, begin, condition)
            x = x + rows_like(length, x) * u
            total = total + u
        return total / self.pieces
