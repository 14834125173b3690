"""Consistency training: neighbours on one trajectory must lead to the same data."""

from dataclasses import dataclass
from typing import Final, final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Ema, Needs
from .core.neighbours import neighbour_error
from .core.noise_weighting import require_weight_at
from .core.pair_times import GridTimes
from .core.record import Batch, Loss, Moment, Nets
from .core.schedule import MatchedDecay, SquareRootGrowth
from .core.weighting import AbstractWeighting, Unweighted

_STEPS: Final = SquareRootGrowth(start=1, end=150)


@final
@dataclass(frozen=True, kw_only=True)
class ConsistencyTraining(AbstractMethod):
    """Consistency training: the jump to data from s equals a moving average's jump from t > s.

        f(x_s, s) = f(x_t, t)   with f(x, s) = X(s, 1)(x), x_s and x_t between the same x0 and x1

    Times are neighbours on a grid. The right side is held constant. At t = 1 it is the data. Two
    noisy states of one pair stand for two states of one trajectory, which on average is an Euler
    step of the exact velocity: the minimum has a bias that falls with the gap, while the noise of
    the gradient grows, so that the grid becomes finer in training.

    Reference: Song et al. 2023, arXiv:2303.01469v2, Alg. 3, and appendix C for both schedules.
    Convention: their noise level is sigma = (1 - t) / t and their state x / t; their f, n and N(k)
        are the jump to data, the later time t and the number of steps plus 1.
    Differs from the paper: the boundary is the data themselves in place of sigma_min, where every
        flow map is the identity, so that the network needs no scaling of its own for it. The
        default distance is a sum over dimensions, where theirs is a mean: learning rates of
        optimizers that see the size of a gradient, and the norm at which it is clipped, are d times
        others. LPIPS, the paper's best, is a distance for images that has to be installed:
        ``perception@method.distance=lpips``, theirs with a side of 224. The target is in evaluation
        mode; theirs has no dropout to share.
    Cost: one forward pass a step, and one of the target network.
    Fails by: a bias while the grid is coarse, noise and slow progress when it is fine; a moving
        average that lags brings a bias of its own, which later work drops.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Neighbouring times, and the schedule of the grid's steps.
        target: The moving average that teaches. Its decay rises as the grid grows finer.
        distance: How both jumps are compared.
        weighting: Weight of each sample, from its error and its two times.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the weight is none at the first time of the grid, from which samples come.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: GridTimes = GridTimes(steps=_STEPS)
    target: Ema = Ema(decay=MatchedDecay(value=0.9, points=2.0, steps=_STEPS))
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()
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
        """A target network."""
        return Needs(target=self.target)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        assert nets.target is not None, "the platform builds what needs declares"
        pair = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        condition = self.label_dropout.keep(batch, now)
        error = neighbour_error(
            nets.online, nets.target, batch, pair, condition, distance=self.distance
        )
        return Loss(
            terms={"consistency_training": self.weighting(error, pair.s, pair.t)},
            logs={"error": error.detach()},
            times=pair.s,
        )
