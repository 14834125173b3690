"""Reflow: flow matching on the pairs that a trained flow makes, which straightens its paths."""

from dataclasses import dataclass
from typing import final

from .core.coupling import AbstractCoupling, StoredPairs
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs, PairMix
from .core.path import LINEAR, AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Linear, Schedule
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class ReFlow(AbstractMethod):
    """Reflow: the next rectified flow, trained on pairs (x0, X(0, 1)(x0)) of the one before.

        loss = |v(x, t) - (x1 - x0)|^2   at x = (1 - t) x0 + t x1

    Pairs of a flow do not cross, so that the paths of the next one are nearly straight and one
    Euler step is nearly exact. The pairs are a stored set, made with the teacher's moving average
    before the first step; they are mixed with real data and the noise that the teacher's flow
    takes back from them, which keeps the student from feeding on its teacher's errors alone.

    Reference: Liu et al. 2022, arXiv:2209.03003v1, Alg. 1. Real data by inversion: Lee et al. 2024,
        arXiv:2405.20320v1, section 4.3.
    Convention: as theirs.
    Differs from the paper: the mixing and its schedule. Real data with fresh noise instead would
        bring the crossings back, and with them a loss that cannot vanish.
    Cost: one forward pass a step, and the making of the pairs once.
    Fails by: the teacher's errors are learnt too; few pairs are overfitted; quality at many steps
        falls with each round.

    Attributes:
        path: Interpolant between noise and data.
        coupling: Stored pairs; nothing else makes sense here.
        times: Law of the time.
        generated: Share of the rows that the teacher made from fresh noise, in [0, 1].
        distance: How prediction and target are compared; pairs that do not cross leave no noise in
            the target, so that any distance will do.
        weighting: Weight of each sample.
        label_dropout: How often a sample is seen without its label; by default never, and a flow
            whose own pairs are to be guided needs some.

    Raises:
        ValueError: If the coupling is not the stored pairs, or rows on the diagonal have no weight.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = StoredPairs()
    times: DiagonalTimes = DiagonalTimes()
    generated: Schedule = Linear(start=0.4, end=0.9)
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()
    label_dropout: LabelDropout = LabelDropout(probability=0.0)

    def __post_init__(self) -> None:
        if not isinstance(self.coupling, StoredPairs):
            raise ValueError(
                f"reflow trains on StoredPairs, got coupling {type(self.coupling).__name__}"
            )
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
        condition = self.label_dropout.keep(batch, now)
        x, v = self.path.at(batch.noise, batch.x1, t)
        error = self.distance(nets.online.velocity(x, t, condition), v)
        return Loss(terms={"reflow": self.weighting(error, t, t)}, times=t)
