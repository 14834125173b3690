"""Easy consistency tuning: a diffusion model becomes a consistency model as a gap closes."""

from dataclasses import dataclass
from typing import final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, PseudoHuber
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs
from .core.neighbours import neighbour_error
from .core.noise_weighting import InverseGap
from .core.pair_times import RatioTimes
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import Doubling
from .core.weighting import AbstractWeighting


@final
@dataclass(frozen=True, kw_only=True)
class EasyConsistencyTuning(AbstractMethod):
    """Easy consistency tuning: continuous times, and a ratio of noise levels that tends to one.

        f(x_s, s) = f(x_t, t)   with f(x, s) = X(s, 1)(x), x_s and x_t between the same x0 and x1

    At first t is the data for most s, which is plain denoising; then the pair closes in stages. The
    right side is the network itself, held constant, with the same dropout.

    Reference: Geng et al. 2024, arXiv:2406.14548v1, section 4; the ratio and the weights after
        their code.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t, so that a log-normal
        level of mean -1.1 is a logit-normal time of mean 1.1.
    Differs from the paper: their distance is the norm itself (c = 0), here a pseudo-Huber one that
        is the norm but for its last digits, so that equal jumps have a gradient. Where they begin
        from a diffusion model, set parents.initial to one of flow matching; from scratch the first
        stages are what trains one.
    Cost: two forward passes a step, one of them without a graph.
    Fails by: closing the gap too early, since errors flow from the data to the noise through every
        pair on the way; rounding when noise levels differ by less than a thousandth.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Law of s, and the schedule by which t follows.
        distance: How both jumps are compared.
        weighting: Weight of each sample, from its error and its two times.
        label_dropout: How often a sample is seen without its label.
        t_lo: Where generation begins, in [0, 1): a noise level of 80. Earlier times, which are
            drawn as well but have little weight, are not promised.

    Raises:
        ValueError: If t_lo is out of range.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: RatioTimes = RatioTimes(parts=Doubling(start=2, end=256))
    distance: AbstractDistance = PseudoHuber(scale=1e-8)
    weighting: AbstractWeighting = InverseGap()
    label_dropout: LabelDropout = LabelDropout()
    t_lo: float = 1.0 / 81.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.t_lo < 1.0:
            raise ValueError(f"method.t_lo must lie in [0, 1), got {self.t_lo}")

    @property
    def domain(self) -> Domain:
        """Jumps to the data."""
        return Domain(
            kind=DomainKind.TO_DATA, t_lo=self.t_lo, has_paired_noise=self.coupling.is_paired
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
            terms={"easy_consistency_tuning": self.weighting(error, pair.s, pair.t)},
            logs={"error": error.detach()},
            times=pair.s,
        )
