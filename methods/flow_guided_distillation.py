"""Flow-guided distillation: one step learns from a large teacher's pairs and a small flow."""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .core.condition import Condition
from .core.coupling import AbstractCoupling, StoredPairs
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind, FlowMap
from .core.method import AbstractMethod, Needs, PairMix, Reading
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Schedule, least, require_range
from .core.shape import rows_like
from .core.teacher import require_readings

_INSTANT: Final = 1e-9
"""Length of a range of one time."""


@final
@dataclass(frozen=True, kw_only=True)
class FlowGuidedDistillation(AbstractMethod):
    """Flow-guided distillation (SlimFlow): pairs of the teacher, and two steps of a flow beside.

        loss = D(X(0, 1)(x0), x1) + w D(X(0, 1)(z), y + (1 - s) v'(y, s)),   y = z + s v'(z, 0)

    with fresh noise z and the velocity v' of a small rectified flow, from whose weights the student
    starts. The pairs are few and dear; of the second term there is no end, and two short steps of a
    nearly straight flow are worth more than the one that the student replaces. The first of the two
    may be the student's own in place of v'.

    Reference: Zhu, Liu and Liu 2024, arXiv:2407.12718v2, section 4.2 (flow-guided distillation).
        The first half of the paper is SlimFlow.
    Convention: their formulas call the noise x1 and the data x0; their code is as here.
    Differs from the paper: the distance is squared L2 unless another is given; theirs is LPIPS,
        which is ``perception@method.distance=lpips`` where it is installed. The noise is the input
        at t = 0 exactly, not mixed with a thousandth of the data. Which rows take the student's own
        step is a schedule.
    Cost: two forward passes a step and two of the small flow, one of which is saved where all rows
        take the student's own step; and the making of the pairs once.
    Fails by: errors of the small flow are learnt as far as w outweighs the pairs; the student's own
        step leads off the flow's path while the student is poor, so begin on the flow's.

    Attributes:
        coupling: Stored pairs; nothing else makes sense here.
        generated: Share of the rows that the teacher made from fresh noise, in [0, 1].
        guidance: w, at least 0.
        own: Share of the rows whose first step is the student's own, in [0, 1].
        s_lo: Least time at which the second step begins, in [0, s_hi].
        s_hi: Greatest time at which it begins, in [s_lo, 1].
        distance: How data are compared.

    Raises:
        ValueError: If the coupling is not the stored pairs, or a value is out of range.
    """

    coupling: AbstractCoupling = StoredPairs()
    generated: Schedule = Constant(value=1.0)
    guidance: Schedule = Constant(value=1.0)
    own: Schedule = Constant(value=1.0)
    s_lo: float = 0.2
    s_hi: float = 0.8
    distance: AbstractDistance = SquaredL2()

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, StoredPairs):
            raise ValueError(
                "flow-guided distillation trains on StoredPairs, "
                f"got coupling {type(self.coupling).__name__}"
            )
        if not 0.0 <= self.s_lo <= self.s_hi <= 1.0:
            raise ValueError(
                "method.s_lo and s_hi must have 0 <= s_lo <= s_hi <= 1, "
                f"got {self.s_lo} and {self.s_hi}"
            )
        require_range("method.guidance", self.guidance, 0.0, float("inf"))
        require_range("method.own", self.own, 0.0, 1.0)
        PairMix(generated=self.generated)  # refuses a share outside [0, 1]

    @property
    def domain(self) -> Domain:
        """The one step."""
        return Domain(kind=DomainKind.TILING, steps=1)

    @property
    def needs(self) -> Needs:
        """Stored pairs of the teacher, and the small flow in the role of the weaker model."""
        return Needs(
            frozen={"weak": Reading(on=self._steps)}, pairs=PairMix(generated=self.generated)
        )

    @property
    def _steps(self) -> Domain:
        """From where the flow's first step begins, its own or the student's, to the second's."""
        t_lo = 0.0 if least(self.own) < 1.0 else min(self.s_lo, 1.0 - _INSTANT)
        return Domain(kind=DomainKind.DIAGONAL, t_lo=t_lo, t_hi=max(self.s_hi, t_lo + _INSTANT))

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        require_readings(self.needs, nets)
        x0, condition = batch.noise, batch.condition
        zero, one = x0.new_zeros(len(batch)), x0.new_ones(len(batch))
        error = self.distance(nets.online.generate(x0, condition), batch.x1)

        z = now.rng.normal(len(batch), *x0.shape[1:], dtype=x0.dtype).to(x0.device)
        u = nets.online(z, zero, one, condition)
        with torch.no_grad():
            target = self._guide(nets.frozen["weak"], z, u, condition, now)
        guided = self.guidance(now) * self.distance(z + u, target)
        return Loss(terms={"pairs": error, "guidance": guided})

    def _guide(
        self,
        flow: FlowMap,
        z: Float[Tensor, " b *d"],
        u: Float[Tensor, " b *d"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b *d"]:
        """Data to which the flow leads in two steps, the first of which may be the student's."""
        n, own = len(z), self.own(now)
        s = self.s_lo + (self.s_hi - self.s_lo) * now.rng.uniform(n, dtype=z.dtype).to(z.device)
        is_own = rows_like((now.rng.uniform(n) < own).to(z.device), z)
        first = u
        if own < 1.0:
            first = torch.where(is_own, u, flow.velocity(z, torch.zeros_like(s), condition))
        y = z + rows_like(s, z) * first
        return y + rows_like(1.0 - s, z) * flow.velocity(y, s, condition)
