"""EDM: denoising at every noise level, where it teaches best. A teacher, seen as a velocity."""

import math
from dataclasses import dataclass
from typing import Final, final

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.distance import SquaredL2
from .core.flow_map import Domain, DomainKind
from .core.guidance import LabelDropout
from .core.method import AbstractMethod, Needs
from .core.path import LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.time_law import LogitNormal
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, DenoiserWeighting, require_weighed_diagonal

_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class EDM(AbstractMethod):
    """EDM: the mean of the data given a noisy view of them, and so the velocity there.

        loss = lambda |D(y, sigma) - x1|^2   at y = x1 + sigma x0,
        lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2,   D = x + (1 - t) v

    In terms of the velocity this is ((1 - t)^2 / sigma_data^2 + t^2) |v - (x1 - x0)|^2, which is
    finite at both ends and never divides by 1 - t. Around ``Preconditioned`` with the same
    sigma_data it gives the inner network unit weight and targets of unit variance. It is flow
    matching with another law of times and another weight: what differs is where it looks.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, section 5 and Table 1; its sampler is
        Heun's rule with a Karras grid and the sigma coordinate, their Alg. 1.
    Convention: their noise level is sigma = (1 - t) / t and their state y = x / t, so that their
        ln sigma ~ N(-1.2, 1.2^2) is logit t ~ N(1.2, 1.2^2).
    Differs from the paper: augmentation of the data is left out. Noise levels are drawn from the
        whole law, as theirs are, and the range of a velocity may reach both ends of the path,
        where their network's input is infinite: with sigma_min = 0 the map can teach a student
        whose times reach the data.
    Cost: one forward pass a step.
    Fails by: nothing at many steps. At one step it returns the mean of the data. Outside the noise
        levels that its law visits, the network is a guess.

    Attributes:
        coupling: How noise is paired with data within the batch.
        times: Law of the time.
        weighting: Weight of each sample, in terms of the velocity.
        sigma_min: Noise level of the last time, at least 0; 0 for the data themselves.
        sigma_max: Noise level of the first time, above sigma_min; None for pure noise.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the noise levels are out of order, or rows on the diagonal have no weight.
    """

    coupling: AbstractCoupling = IndependentCoupling()
    times: DiagonalTimes = DiagonalTimes(law=LogitNormal(mean=1.2, std=1.2))
    weighting: AbstractWeighting = DenoiserWeighting()
    sigma_min: float = 0.002
    sigma_max: float | None = 80.0
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        is_ordered = self.sigma_max is None or self.sigma_min < self.sigma_max < math.inf
        if not (0.0 <= self.sigma_min < math.inf and is_ordered):
            raise ValueError(
                "EDM needs finite 0 <= sigma_min < sigma_max, "
                f"got {self.sigma_min} and {self.sigma_max}"
            )
        require_weighed_diagonal(self.weighting)

    @property
    def domain(self) -> Domain:
        """The diagonal between the two noise levels."""
        return Domain(
            kind=DomainKind.DIAGONAL,
            t_lo=0.0 if self.sigma_max is None else 1.0 / (1.0 + self.sigma_max),
            t_hi=1.0 / (1.0 + self.sigma_min),
        )

    @property
    def needs(self) -> Needs:
        """Nothing but the network."""
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        condition = self.label_dropout.keep(batch, now)
        x, v = _PATH.at(batch.noise, batch.x1, t)
        error = SquaredL2()(nets.online.velocity(x, t, condition), v)
        return Loss(terms={"denoising": self.weighting(error, t, t)}, times=t)
