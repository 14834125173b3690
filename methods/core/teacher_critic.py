"""A critic that reads what a frozen teacher computes inside of noised samples."""

from dataclasses import dataclass
from typing import Final, final

from jaxtyping import Float
from torch import Tensor, nn

from .adversary import Adversary
from .condition import Condition
from .feature_heads import FeatureHeads, features_at
from .flow_map import FlowMap
from .path import LinearPath
from .record import Moment
from .time_law import AbstractTimeLaw

_PATH: Final = LinearPath()


def judged(
    heads: nn.Module,
    teacher: FlowMap,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
) -> Float[Tensor, " b"]:
    """What a critic says of the teacher's features of noised samples.

    Args:
        heads: The critic's feature heads.
        teacher: The teacher; it keeps a graph where the samples have one.
        x: Noised samples.
        t: Times of their noise.
        condition: Condition of each row.
    """
    assert isinstance(heads, FeatureHeads), "the platform builds what needs declares"
    value: Tensor = heads(features_at(teacher, heads.names, x, t, condition))
    return value.to(x.dtype)


@final
@dataclass(frozen=True, kw_only=True)
class TeacherCritic:
    """An adversary whose critic reads a teacher, with all that it needs for one batch.

    Attributes:
        adversary: The losses and their weights.
        law: Law of the noise on what the critic reads; times outside the teacher's range are moved
            to its ends.
        heads: The critic's feature heads.
        teacher: The teacher.
        condition: Condition of each row, as the teacher is told it.
    """

    adversary: Adversary
    law: AbstractTimeLaw
    heads: nn.Module
    teacher: FlowMap
    condition: Condition | None

    def generator_loss(self, made: Float[Tensor, " b *d"], now: Moment) -> Float[Tensor, " b"]:
        """Weighted loss of the generator.

        Args:
            made: Generated samples.
            now: The moment, for the noise and the weight.
        """
        value = self._judged(*self._noised(made, now))
        return self.adversary.generator(now) * self.adversary.loss.generator(value)

    def critic_loss(
        self, real: Float[Tensor, " b *d"], made: Float[Tensor, " b *d"], now: Moment
    ) -> Float[Tensor, " b"]:
        """Weighted loss of the critic, one real sample and one generated one in each row.

        Args:
            real: Real samples.
            made: Generated samples, without a graph.
            now: The moment, for the noise and the weight.
        """
        fake = self._judged(*self._noised(made, now))
        x, t = self._noised(real, now)

        def critic(x: Tensor) -> Tensor:
            return self._judged(x, t)

        value = critic(x)
        loss = self.adversary.loss.critic(value, fake)
        loss = loss + self.adversary.penalty(critic, x, value, now)
        return self.adversary.critic(now) * loss

    def _judged(self, x: Tensor, t: Tensor) -> Tensor:
        return judged(self.heads, self.teacher, x, t, self.condition)

    def _noised(self, x1: Tensor, now: Moment) -> tuple[Tensor, Tensor]:
        """Samples with fresh noise, and its times within the teacher's range."""
        domain = self.teacher.domain
        t = self.law.draw(len(x1), now.rng, dtype=x1.dtype).to(x1.device)
        t = t.clamp(domain.t_lo, domain.t_hi)
        x0 = now.rng.normal(*x1.shape, dtype=x1.dtype).to(x1.device)
        return _PATH.at(x0, x1, t).x, t
