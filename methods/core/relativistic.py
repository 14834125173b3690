"""A relativistic adversary: a critic of pairs, one real and one generated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .adversary import AbstractPenalty
from .feature_heads import FeatureHeads
from .gradient_penalty import GradientPenalty
from .path import LinearPath
from .record import Moment
from .schedule import Constant, Schedule, require_range
from .time_law import AbstractTimeLaw, LogitNormal

Judge = Callable[[Float[Tensor, " b *d"], Float[Tensor, " b"]], Float[Tensor, " b"]]
"""A critic of samples with noise, and of the times of that noise."""
_PATH: Final = LinearPath()


@final
@dataclass(frozen=True, kw_only=True)
class RelativisticAdversary:
    """An adversarial term in which real and generated samples are compared, not told apart.

        critic     softplus(D(generated) - D(real)) + penalty at both
        generator  softplus(D(real) - D(generated))

    Where both laws agree no critic gains anything, so that a constant one is its best and leaves
    the generator alone; the penalties keep it from leaving that state.

    Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734v3; with both penalties Huang et al. 2025,
        arXiv:2501.05441v1.

    Attributes:
        features: Channels of each part of the teacher that the critic reads, by its dotted name.
        width: Channels of the critic's hidden layers.
        law: Law of the noise on what the critic judges, as a time.
        penalty: Penalty on the critic's slope, at real samples and at generated ones.
        weight: Weight of the generator's loss, at least 0.

    Raises:
        ValueError: If no feature is read, a size is below 1 or the weight is negative.
    """

    features: Mapping[str, int]
    width: int = 64
    law: AbstractTimeLaw = LogitNormal(mean=1.2, std=1.2)
    penalty: AbstractPenalty = GradientPenalty()
    weight: Schedule = Constant(value=0.1)

    def __post_init__(self) -> None:
        require_range("adversary.weight", self.weight, 0.0, float("inf"))
        self.build()  # refuses sizes that make no sense

    def build(self) -> FeatureHeads:
        """The critic's heads, with fresh weights."""
        return FeatureHeads(self.features, width=self.width)

    def critic_loss(
        self, judge: Judge, real: Float[Tensor, " b *d"], made: Float[Tensor, " b *d"], now: Moment
    ) -> Float[Tensor, " b"]:
        """Loss of the critic, one real sample and one generated one in each row.

        Args:
            judge: The critic.
            real: Real samples.
            made: Generated samples, without a graph.
            now: The moment, for the noise.
        """
        real, made, t = self._noised(real, made, now)

        def critic(x: Tensor) -> Tensor:
            return judge(x, t)

        ours, theirs = critic(real), critic(made)
        loss = functional.softplus(theirs - ours)
        loss = loss + self.penalty(critic, real, ours, now)
        return loss + self.penalty(critic, made, theirs, now)

    def generator_loss(
        self, judge: Judge, real: Float[Tensor, " b *d"], made: Float[Tensor, " b *d"], now: Moment
    ) -> Float[Tensor, " b"]:
        """Weighted loss of the generator, one real sample and one generated one in each row.

        Args:
            judge: The critic.
            real: Real samples.
            made: Generated samples.
            now: The moment, for the noise and the weight.
        """
        real, made, t = self._noised(real, made, now)
        with torch.no_grad():
            ours = judge(real, t)
        return self.weight(now) * functional.softplus(ours - judge(made, t))

    def _noised(self, real: Tensor, made: Tensor, now: Moment) -> tuple[Tensor, Tensor, Tensor]:
        """Both with the same noise, so that they differ as the samples do."""
        t = self.law.draw(len(real), now.rng, dtype=real.dtype).to(real.device)
        x0 = now.rng.normal(*real.shape, dtype=real.dtype).to(real.device)
        return _PATH.at(x0, real, t).x, _PATH.at(x0, made, t).x, t
