"""Improved consistency training: no moving average, robust distances, a grid that doubles."""

from dataclasses import dataclass
from typing import final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, PseudoHuber
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs
from .core.neighbours import neighbour_error
from .core.noise_weighting import InverseGap, require_weight_at
from .core.pair_times import GridTimes
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Doubling
from .core.time_law import LogitNormal
from .core.weighting import AbstractWeighting


@final
@dataclass(frozen=True, kw_only=True)
class ImprovedConsistencyTraining(AbstractMethod):
    """Improved consistency training: the network teaches itself, on a grid that doubles.

        f(x_s, s) = f(x_t, t)   with f(x, s) = X(s, 1)(x), x_s and x_t between the same x0 and x1

    The right side is the network itself, held constant, with the same dropout. Intervals are chosen
    by a log-normal law of the noise level and weighted by one over their width in it; a
    pseudo-Huber distance tames the outliers.

    Reference: Song and Dhariwal 2023, arXiv:2310.14189v1, Eq. (7) and sections 3.2 to 3.5.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t, so that a log-normal
        level of mean -1.1 is a logit-normal time of mean 1.1. Their N(k) is the steps plus 1.
    Differs from the paper: the boundary is the data themselves in place of sigma_min, so that the
        last interval is wider by it, in its chance and in its weight.
    Cost: two forward passes a step, one of them without a graph.
    Fails by: noise when the grid is fine, a bias that falls as 1 / steps when it is coarse; above a
        thousand steps, rounding.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Neighbouring times, and the schedule of the grid's steps.
        distance: How both jumps are compared.
        weighting: Weight of each sample, from its error and its two times.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the weight is none at the first time of the grid, from which samples come.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: GridTimes = GridTimes(
        steps=Doubling(start=10, end=1280), law=LogitNormal(mean=1.1, std=2.0)
    )
    distance: AbstractDistance = PseudoHuber(scale=0.00054)
    weighting: AbstractWeighting = InverseGap()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        require_weight_at(self.times.t_lo, self.weighting)

    @property
    def domain(self) -> Domain:
        """Jumps to the data from the first time of the grid on."""
        return Domain(
            kind=DomainKind.TO_DATA, t_lo=self.times.t_lo, has_paired_noise=self.coupling.is_paired
        )

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        pair = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        condition = self.label_dropout.keep(batch, now)
        error = neighbour_error(
            nets.online, nets.online, batch, pair, condition, distance=self.distance
        )
        return Loss(
            terms={"improved_consistency_training": self.weighting(error, pair.s, pair.t)},
            logs={"error": error.detach()},
            times=pair.s,
        )
