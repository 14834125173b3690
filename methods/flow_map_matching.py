"""Flow map matching: a flow map is taught by a known velocity, by the path, or by a shorter map."""

from dataclasses import dataclass, replace
from typing import final

import torch

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain
from .core.guidance import LabelDropout
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.matching import AbstractMatching, Jumps, LagrangianMatching
from .core.method import TEACHER, AbstractMethod, Needs, Reading
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant
from .core.teacher import require_readings
from .core.time_law import Uniform
from .core.times import AbstractTimes, SortedTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class FlowMapMatching(AbstractMethod):
    """Flow map matching: the two-time map of a known velocity, or of the path itself.

    Rows off the diagonal carry the error of the matching, the others |u(x, s, s) - v|^2 with the
    velocity v of the path, which has the teacher's as its mean if both pair noise with data alike.

    Reference: Boffi, Albergo and Vanden-Eijnden 2024, arXiv:2406.07507v2, section 3: Lagrangian and
        Eulerian map distillation, flow map matching and progressive flow map matching.
    Convention: as theirs.
    Differs from the paper: the diagonal has rows of its own if the law of times has any, where the
        paper leaves it to the limit; progressive errors are those of the average velocity, which
        weighs a jump by 1 / (t - s)^2 beside the error of its end. The weight of (s, t) is that of
        the law of times.
    Cost: Lagrangian, a derivative with its graph and a teacher's pass with its own; Eulerian, a
        derivative with its graph and a teacher's pass; direct, a forward pass and a derivative with
        its graph; progressive, a forward pass and ``count`` of the teacher. A guided teacher's pass
        is two.
    Fails by: the teacher's errors are learnt too. Eulerian: slow and blurred, as the Jacobian
        enters the gradient. Direct: it has to learn the way back to noise as well.

    Attributes:
        path: Interpolant between noise and data, on which jumps start.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t), uniform on the triangle, without rows on the diagonal by default.
            Lagrangian matching also learns jumps from noise alone, Eulerian those to the data, and
            progressive those of any law, whose parts the teacher has to know.
        matching: The loss of the jumps.
        weighting: Weight of each sample.
        guidance: How the teacher is guided, whose velocity the diagonal then learns as well. Where
            scales are drawn the network takes one.
        label_dropout: How often a sample is seen without its label, by the teacher too.

    Raises:
        ValueError: If the times cover no jumps that the matching trains, rows on the diagonal have
            no weight, or a matching without a teacher, or one of its jumps, is to be guided.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(law=Uniform(), diagonal=Constant(value=0.0))
    matching: AbstractMatching = LagrangianMatching()
    weighting: AbstractWeighting = Unweighted()
    guidance: AbstractTeacherGuidance = Unguided()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        require_coverage(type(self.matching).__name__, self.times, self.matching.kinds)
        if self.times.meets_diagonal:
            require_weighed_diagonal(self.weighting)
        reading = self._reading
        if reading is not None:
            self.guidance.frozen(reading)  # refuses jumps where it needs a velocity
        elif self.guidance.is_on:
            raise ValueError(
                "guidance needs a matching with a teacher, "
                f"got {type(self.matching).__name__}, which has none"
            )

    @property
    def domain(self) -> Domain:
        """What the times cover, as far as the path's velocity is finite."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """The teacher of the matching, if it has one, and what guides it."""
        reading = self._reading
        return Needs() if reading is None else self.guidance.needs(reading)

    @property
    def _reading(self) -> Reading | None:
        view = self.matching.frozen.get(TEACHER)
        if view is None:
            return None
        learns_path = self.times.meets_diagonal and not self.guidance.is_on
        return Reading(
            view=view,
            on=self.matching.asked(self.domain),
            pairing=self.coupling.is_paired if learns_path else None,
        )

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        require_readings(self.needs, nets)
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t = times.s, times.t
        condition = self.label_dropout.keep(batch, now)
        condition = self.guidance.tell(condition, batch, now)
        batch = replace(batch, condition=condition)

        error = torch.zeros_like(s)
        on, off = times.diagonal_rows, times.off_rows
        if len(on):
            rows = batch[on]
            x, v = self.path.at(rows.noise, rows.x1, s[on])
            if self.guidance.is_on:
                v = self.guidance.velocity(nets, x, s[on], rows.condition)
            with dropout_rows(on):
                error[on] = SquaredL2()(nets.online.velocity(x, s[on], rows.condition), v)
        if len(off):
            if self.guidance.is_on:
                nets = replace(nets, frozen={**nets.frozen, TEACHER: self.guidance.teacher(nets)})
            jumps = Jumps(batch=batch[off], path=self.path, s=s[off], t=t[off])
            with dropout_rows(off):
                error[off] = self.matching.error(nets, jumps, now)
        return Loss(terms={"flow_map_matching": self.weighting(error, s, t)}, times=s)
