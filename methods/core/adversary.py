"""Adversaries: losses against a critic that tells real samples from generated ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .feature_heads import FeatureHeads
from .record import Moment
from .schedule import Constant, Schedule, require_range

Critic = Callable[[Float[Tensor, " b *d"]], Float[Tensor, " b"]]
"""One number for each sample, high where it looks real."""


class AbstractAdversarialLoss(ABC):
    """What a critic and a generator lose, given the critic's numbers."""

    @abstractmethod
    def critic(
        self, real: Float[Tensor, " b"], generated: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Loss of the critic, one real sample and one generated one in each row."""

    @abstractmethod
    def generator(self, generated: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Loss of the generator."""


@final
@dataclass(frozen=True, kw_only=True)
class HingeLoss(AbstractAdversarialLoss):
    """Margins: relu(1 - real) + relu(1 + generated) against -generated.

    The best critic is 1 where real samples are denser and -1 elsewhere, and loses 2 (1 - TV), with
    TV the total variation between both laws.

    Reference: Lim and Ye 2017, arXiv:1705.02894v2, section 2.
    """

    def critic(
        self, real: Float[Tensor, " b"], generated: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Loss of the critic, one real sample and one generated one in each row."""
        return functional.relu(1.0 - real) + functional.relu(1.0 + generated)

    def generator(self, generated: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Loss of the generator."""
        return -generated


@final
@dataclass(frozen=True, kw_only=True)
class NonSaturatingLoss(AbstractAdversarialLoss):
    """Cross entropies: softplus(-real) + softplus(generated) against softplus(-generated).

    The best critic is ln(p_real / p_generated), and loses 2 ln 2 - 2 JS with JS the
    Jensen-Shannon divergence, in nats.

    Reference: Goodfellow et al. 2014, arXiv:1406.2661v1, section 3 and Prop. 1.
    """

    def critic(
        self, real: Float[Tensor, " b"], generated: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Loss of the critic, one real sample and one generated one in each row."""
        return functional.softplus(-real) + functional.softplus(generated)

    def generator(self, generated: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Loss of the generator."""
        return functional.softplus(-generated)


class AbstractPenalty(ABC):
    """A penalty on a critic's slope."""

    @abstractmethod
    def __call__(
        self,
        critic: Critic,
        x: Float[Tensor, " b *d"],
        value: Float[Tensor, " b"],
        now: Moment,
    ) -> Float[Tensor, " b"]:
        """Penalty of each sample."""


@final
@dataclass(frozen=True, kw_only=True)
class ApproximateR1(AbstractPenalty):
    """A penalty on a critic's slope at real samples, without a second derivative.

        weight |D(x) - D(x + scale n)|^2   with n standard normal

    To first order its mean is weight scale^2 |grad D|^2, which it equals where D is linear.

    Reference: Lin et al. 2025 (APT), arXiv:2501.08316v1, section 3.

    Attributes:
        weight: At least 0; 0 for no penalty and no further pass.
        scale: Standard deviation of the noise, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    weight: float = 0.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not (0.0 <= self.weight < math.inf and 0.0 < self.scale < math.inf):
            raise ValueError(
                "approximate R1 needs a finite weight of at least 0 and a finite scale above 0, "
                f"got {self.weight} and {self.scale}"
            )

    def __call__(
        self,
        critic: Critic,
        x: Float[Tensor, " b *d"],
        value: Float[Tensor, " b"],
        now: Moment,
    ) -> Float[Tensor, " b"]:
        """Penalty of each sample.

        Args:
            critic: The critic.
            x: Real samples.
            value: What the critic says of them.
            now: The moment, for the noise.
        """
        if self.weight == 0.0:
            return value.new_zeros(len(value))
        noise = now.rng.normal(*x.shape, dtype=x.dtype).to(x.device)
        return self.weight * (critic(x + self.scale * noise) - value).square()


@final
@dataclass(frozen=True, kw_only=True)
class Adversary:
    """An adversarial term of a method, whose critic reads the features of a network it has anyway.

    No pretrained classifier takes part, so that nothing is downloaded and no metric's features
    leak into training.

    Attributes:
        features: Channels of each part of that network that is read, by its dotted name.
        width: Channels of the critic's hidden layers.
        loss: What both sides lose.
        penalty: Penalty on the critic's slope at real samples.
        generator: Weight of the generator's loss, at least 0.
        critic: Weight of the critic's loss, above 0.

    Raises:
        ValueError: If no feature is read, a size is below 1 or a weight is out of range.
    """

    features: Mapping[str, int]
    width: int = 64
    loss: AbstractAdversarialLoss = NonSaturatingLoss()
    penalty: AbstractPenalty = ApproximateR1()
    generator: Schedule = Constant(value=3e-3)
    critic: Schedule = Constant(value=1e-2)

    def __post_init__(self) -> None:
        require_range("adversary.generator", self.generator, 0.0, float("inf"))
        require_range("adversary.critic", self.critic, 1e-12, float("inf"))
        self.build()  # refuses sizes that make no sense

    @property
    def names(self) -> tuple[str, ...]:
        """Parts of the network that are read."""
        return tuple(self.features)

    def build(self) -> FeatureHeads:
        """The critic's heads, with fresh weights."""
        return FeatureHeads(self.features, width=self.width)
