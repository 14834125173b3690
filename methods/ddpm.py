"""DDPM: a diffusion that preserves variance, whose network finds the noise. A teacher."""

from dataclasses import dataclass
from typing import Final, final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.diffusion_clock import AbstractDiffusionClock, DiscreteClock
from .core.distance import AbstractDistance, SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs
from .core.path import LinearPath
from .core.prediction import NoisePrediction
from .core.record import Batch, Loss, Moment, Nets
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal

_PATH: Final = LinearPath()
_NOISE: Final = NoisePrediction()


@final
@dataclass(frozen=True, kw_only=True)
class DDPM(AbstractMethod):
    """DDPM: the mean of the noise in a state of the diffusion, and so the velocity of its flow.

        loss = |eps(z, tau) - x0|^2   at z = a x1 + g x0, a^2 + g^2 = 1, tau as the clock draws it

    On the linear path z is x = z / (a + g) at t = a / (a + g), and eps = x - t v. The velocity
    v = (x - eps) / t of the probability-flow ODE is finite on the whole range, which begins above
    pure noise; nothing is divided by 1 - t. The map is a velocity on the linear path, as every
    other one here, so that any sampler and any student can use it.

    Reference: Ho et al. 2020, arXiv:2006.11239v2, Alg. 1 and Eq. (14); Song et al. 2021,
        arXiv:2011.13456v2, Eq. (13), for the flow; DDIM, Song et al. 2020, arXiv:2010.02502v4, is
        Euler's rule along it.
    Convention: their time tau runs from data to noise. A network that is told z and the clock and
        predicts the noise is ``DiffusionVelocity`` with a noise prediction; any other is judged
        by the noise that its velocity means, which at pure noise is hardly at all.
    Differs from the paper: the samples follow the flow; there is no random sampler.
    Cost: one forward pass a step.
    Fails by: an error of the predicted noise is 1 / t times as large in the velocity, so that the
        first steps of a sampler must be short where the range begins near pure noise.

    Attributes:
        clock: How the diffusion counts its time, which is drawn uniformly.
        coupling: How noise is paired with data within the batch.
        distance: How predicted and true noise are compared. Only squared L2 has the velocity of
            the flow as its minimum.
        weighting: Weight of each sample, from its error in the noise.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the weighting has no weight for rows on the diagonal.
    """

    clock: AbstractDiffusionClock = DiscreteClock()
    coupling: AbstractCoupling = IndependentCoupling()
    distance: AbstractDistance = SquaredL2()
    weighting: AbstractWeighting = Unweighted()
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """The diagonal, from the clock's last noise to its first."""
        return Domain(kind=DomainKind.DIAGONAL, t_lo=self.clock.t_lo, t_hi=self.clock.t_hi)

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        tau = self.clock.draw(len(batch), now.rng, dtype=batch.x1.dtype)
        t = self.clock.time(tau).to(batch.x1.device)
        condition = self.label_dropout.keep(batch, now)
        x, _ = _PATH.at(batch.noise, batch.x1, t)
        said = _NOISE.of(nets.online.velocity(x, t, condition), x, t)
        error = self.distance(said, batch.noise)
        return Loss(terms={"noise_prediction": self.weighting(error, t, t)}, times=t)
