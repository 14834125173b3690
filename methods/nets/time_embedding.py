"""Embedding of the start time s and the length h = t - s, with a derivative of moderate size.

The derivative of a loss along the path runs through these features, and its size is that of the
highest frequency: time is not multiplied by 1000, as is usual elsewhere.

Shape suffixes: B rows, F features, E embedding.
"""

import math
from typing import Final, final

import torch
from torch import Tensor, nn

from .affine import Linear, scaled

_FREQUENCIES: Final = 16
_MIN_CYCLES: Final = 0.25  # monotone over [0, 1]


class Frequencies(nn.Module):
    """Angular frequencies in geometric progression, the same for every time.

    Args:
        max_cycles: Periods of the fastest feature over the unit interval.

    Raises:
        ValueError: If the fastest feature is slower than the slowest, or infinitely fast.
    """

    def __init__(self, *, max_cycles: float) -> None:
        super().__init__()
        if not _MIN_CYCLES <= max_cycles < math.inf:
            raise ValueError(
                f"max_cycles must be at least {_MIN_CYCLES} and finite, got {max_cycles}"
            )
        exponents = torch.linspace(math.log(_MIN_CYCLES), math.log(max_cycles), _FREQUENCIES)
        self.omega_F: Tensor
        self.register_buffer("omega_F", 2 * math.pi * exponents.exp(), persistent=False)


@final
class PeriodicFeatures(Frequencies):
    """A number in [0, 1], its sines and its cosines."""

    size: Final = 2 * _FREQUENCIES + 1

    def forward(self, value_B: Tensor) -> Tensor:
        """Features of each row."""
        value_B1 = value_B[:, None]
        angle_BF = scaled(value_B1, self.omega_F)
        return torch.cat([value_B1, angle_BF.sin(), angle_BF.cos()], dim=1)


@final
class VanishingFeatures(Frequencies):
    """A number in [0, 1], its sines and one minus its cosines: all exactly zero at zero."""

    size: Final = 2 * _FREQUENCIES + 1

    def forward(self, value_B: Tensor) -> Tensor:
        """Features of each row."""
        value_B1 = value_B[:, None]
        half_BF = scaled(value_B1, 0.5 * self.omega_F)
        sine_BF = half_BF.sin()
        # 1 - cos(2 a) = 2 sin(a)^2 loses no digits for small a.
        return torch.cat(
            [value_B1, scaled(half_BF, 2.0).sin(), scaled(sine_BF * sine_BF, 2.0)], dim=1
        )


@final
class VanishingLinear(nn.Module):
    """A linear map of features that vanish at zero, zero at the start and without bias.

    As long as only the value zero was seen its weight has had no gradient and is still zero, so
    that the network does not depend on the value at all.

    Args:
        width: Width of the embedding.
        max_cycles: Periods of the fastest feature over the unit interval.
    """

    def __init__(self, width: int, *, max_cycles: float) -> None:
        super().__init__()
        self.features = VanishingFeatures(max_cycles=max_cycles)
        self.linear = Linear(VanishingFeatures.size, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, value_B: Tensor) -> Tensor:
        """Embedding of each row, zero where the value is zero."""
        features_BF: Tensor = self.features(value_B)
        e_BE: Tensor = self.linear(features_BF.to(self.linear.weight.dtype))
        return e_BE


@final
class TimeEmbedding(nn.Module):
    """Embedding of (s, h), before its nonlinearity.

    A network trained on the diagonal alone never changes the part that sees h, and is then
    u(x, s, t) = v(x, s) for every t: a two-time net started from a velocity.

    Args:
        width: Width of the embedding.
        max_cycles: Periods of the fastest feature over the unit interval.
    """

    def __init__(self, width: int, *, max_cycles: float) -> None:
        super().__init__()
        self.start_features = PeriodicFeatures(max_cycles=max_cycles)
        self.start = Linear(PeriodicFeatures.size, width)
        self.length = VanishingLinear(width, max_cycles=max_cycles)

    def forward(self, s_B: Tensor, h_B: Tensor) -> Tensor:
        """Embedding of each row."""
        features_BF: Tensor = self.start_features(s_B)
        e_BE: Tensor = self.start(features_BF.to(self.start.weight.dtype)) + self.length(h_B)
        return e_BE
