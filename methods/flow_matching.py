"""Flow matching: regress the velocity of a path. The teacher of most one-step methods."""

from dataclasses import dataclass
from typing import final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class FlowMatching(AbstractMethod):
    """Flow matching: the velocity of the marginal is the mean velocity of the pairs through it.

        loss = |v(x, t) - (alpha' x0 + beta' x1)|^2   at x = alpha x0 + beta x1

    Reference: Lipman et al. 2022, arXiv:2210.02747v2, Eq. (9); Liu et al. 2022,
        arXiv:2209.03003v1, Eq. (1). With a coupling by optimal transport it is Tong et al. 2023,
        arXiv:2302.00482v4, Alg. 3.
    Convention: as in both, time runs from noise to data.
    Cost: one forward pass a step.
    Fails by: nothing at many steps. At one step it returns the mean of the data under an
        independent coupling, whatever the noise.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of the time.
        distance: How prediction and target are compared. Only squared L2 has the velocity of the
            marginal as its minimum.
        weighting: Weight of each sample.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the weighting has no weight for rows on the diagonal.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: DiagonalTimes = DiagonalTimes()
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """The diagonal, as far as the path's velocity is finite."""
        return Domain(
            kind=DomainKind.DIAGONAL,
            t_hi=self.path.t_hi,
            path=self.path.name,
            has_paired_noise=self.coupling.is_paired,
        )

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        condition = self.label_dropout.keep(batch, now)
        x, v = self.path.at(batch.noise, batch.x1, t)
        error = self.distance(nets.online.velocity(x, t, condition), v)
        return Loss(terms={"flow_matching": self.weighting(error, t, t)}, times=t)
