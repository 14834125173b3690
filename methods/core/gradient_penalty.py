"""The exact penalty on a critic's slope."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .adversary import AbstractPenalty, Critic
from .record import Moment
from .shape import sum_rows


@final
@dataclass(frozen=True, kw_only=True)
class GradientPenalty(AbstractPenalty):
    """A penalty on a critic's slope, by a second derivative: weight / 2 |grad D(x)|^2.

    At real samples it is R1, at generated ones R2.

    Reference: Mescheder et al. 2018, arXiv:1801.04406v4.

    Attributes:
        weight: At least 0; 0 for no penalty and no further pass.

    Raises:
        ValueError: If the weight is negative.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < math.inf:
            raise ValueError(
                f"gradient penalty needs a finite weight of at least 0, got {self.weight}"
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
            x: Samples.
            value: What the critic says of them, without a graph to the samples.
            now: The moment.
        """
        del now
        if self.weight == 0.0:
            return value.new_zeros(len(value))
        at = x.detach().requires_grad_()
        # The critic judges each sample by itself, so that the slopes of the sum are its own.
        (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
        return 0.5 * self.weight * sum_rows(slope.square())
