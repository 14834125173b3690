"""Moving averages of the weights, for evaluation; their width is a number of samples."""

import copy
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ...methods.core.flow_map import FlowMap


def average_into(average: FlowMap, online: FlowMap, decay: float) -> None:
    """Move an average towards the online weights: decay x average + (1 - decay) x online.

    Args:
        average: Network that is changed in place.
        online: Network that it follows.
        decay: Share of the average that stays, in [0, 1].
    """
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(online.parameters()), 1.0 - decay)


@final
class MovingAverages:
    """Several moving averages of one network at once.

    A half-life of H samples keeps half of an average over H samples. Early in training no
    half-life exceeds ``ramp`` times the samples seen, so that the initial weights are forgotten.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, appendix F, its half-life and ramp-up.

    Args:
        online: The network in training.
        half_lives: Half-life of each average, in samples.
        ramp: Longest half-life as a share of the samples seen.
    """

    def __init__(self, online: FlowMap, half_lives: Sequence[float], *, ramp: float) -> None:
        self._half_lives, self._ramp = tuple(half_lives), ramp
        self.nets = tuple(
            copy.deepcopy(online).eval().requires_grad_(False) for _ in self._half_lives
        )

    def decay(self, which: int, *, samples: int, batch_size: int) -> float:
        """Share of an average that stays at a step.

        Args:
            which: Number of the average.
            samples: Samples seen, this step's among them.
            batch_size: Samples of this step.

        Returns:
            A number in (0, 1).
        """
        half_life = min(self._half_lives[which], self._ramp * samples)
        return float(0.5 ** (batch_size / half_life))

    def update(self, online: FlowMap, *, samples: int, batch_size: int) -> None:
        """Follow the online network after a step.

        Args:
            online: The network in training.
            samples: Samples seen, this step's among them.
            batch_size: Samples of this step.
        """
        for which, average in enumerate(self.nets):
            decay = self.decay(which, samples=samples, batch_size=batch_size)
            average_into(average, online, decay)

    def state(self) -> list[dict[str, Tensor]]:
        """Weights of all averages."""
        return [dict(average.state_dict()) for average in self.nets]

    def load(self, state: Sequence[dict[str, Tensor]]) -> None:
        """Put back what ``state`` gave."""
        for average, weights in zip(self.nets, state, strict=True):
            average.load_state_dict(weights)
