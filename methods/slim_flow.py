"""SlimFlow: a small network grows into the pairs of a large one while their noise is annealed."""

from dataclasses import dataclass
from typing import final

from .core.coupling import AbstractCoupling, StoredPairs
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.method import AbstractMethod, Needs, PairMix
from .core.path import LINEAR, AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Constant, Linear, Schedule, require_range
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class SlimFlow(AbstractMethod):
    """Annealed reflow (SlimFlow): from flow matching to reflow, without weights to start from.

        loss = |v(x, t) - (x1 - z)|^2   at x = (1 - t) z + t x1,   z = sqrt(1 - b^2) x0 + b e

    with fresh noise e: z is standard normal for every b. At b = 1 the pairs are independent, which
    a small network learns from scratch; at b = 0 they are those of its large teacher, whose weights
    it cannot inherit. In between the correlation of noise and data is that of the pairs times
    sqrt(1 - b^2).

    Reference: Zhu, Liu and Liu 2024, arXiv:2407.12718v2, section 4.1 (annealing reflow). The second
        half of the paper is FlowGuidedDistillation.
    Convention: their formulas call the noise x1 and the data x0; their code is as here.
    Differs from the paper: b follows the progress of the run and not a count of steps. Images and
        their noise are not mirrored. Real data may be mixed in as in reflow; by default none are.
    Cost: one forward pass a step, and the making of the pairs once.
    Fails by: an annealing too short leaves the mismatch that it is meant to avoid; a moving average
        slower than the annealing serves a network of crossing pairs; the teacher's errors are
        learnt too.

    Attributes:
        path: Interpolant between noise and data.
        coupling: Stored pairs; nothing else makes sense here.
        times: Law of the time.
        fresh: b, how much of the noise is fresh, in [0, 1].
        generated: Share of the rows that the teacher made from fresh noise, in [0, 1].
        distance: How prediction and target are compared; as long as b is above 0 only squared L2
            has the velocity of the marginal as its minimum.
        weighting: Weight of each sample.

    Raises:
        ValueError: If the coupling is not the stored pairs, a schedule leaves [0, 1], or rows on
            the diagonal have no weight.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = StoredPairs()
    times: DiagonalTimes = DiagonalTimes()
    fresh: Schedule = Linear(start=1.0, end=0.0, until=0.5)
    generated: Schedule = Constant(value=1.0)
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, StoredPairs):
            raise ValueError(
                f"SlimFlow trains on StoredPairs, got coupling {type(self.coupling).__name__}"
            )
        require_range("method.fresh", self.fresh, 0.0, 1.0)
        PairMix(generated=self.generated)  # refuses a share outside [0, 1]
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """The diagonal, as far as the path's velocity is finite; straight on the linear path."""
        return Domain(
            kind=DomainKind.DIAGONAL,
            t_hi=self.path.t_hi,
            is_straight=self.path.name == LINEAR,
            path=self.path.name,
            has_paired_noise=self.coupling.is_paired,
        )

    @property
    def needs(self) -> Needs:
        """Stored pairs."""
        return Needs(pairs=PairMix(generated=self.generated))

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        b, x0 = self.fresh(now), batch.noise
        other = now.rng.normal(len(batch), *x0.shape[1:], dtype=x0.dtype).to(x0.device)
        x, v = self.path.at((1.0 - b * b) ** 0.5 * x0 + b * other, batch.x1, t)
        error = self.distance(nets.online.velocity(x, t, batch.condition), v)
        return Loss(terms={"slim_flow": self.weighting(error, t, t)}, times=t)
