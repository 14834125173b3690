"""Affine maps whose forward-mode derivative costs what it has to.

A dual number goes through torch's own layers as two products: of the tangent with the weight, and
of the value with the weight's tangent. Weights and constants have none here, and the second product
multiplies by zeros, which takes as long, or longer. Value and tangent go their own ways where no
graph is recorded; a graph would have to know that they belong together.
"""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional


def _parts(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and tangent of x where they may part, else x itself and None."""
    return (x, None) if torch.is_grad_enabled() else forward_ad.unpack_dual(x)


def _layer(
    x: Tensor, weight: Tensor, whole: Callable[[Tensor], Tensor], linear: Callable[[Tensor], Tensor]
) -> Tensor:
    """A layer at x: all of it at the value, its linear part at the tangent."""
    value, tangent = _parts(x)
    if tangent is None or forward_ad.unpack_dual(weight).tangent is not None:
        return whole(x)
    return forward_ad.make_dual(whole(value), linear(tangent))


@final
class Linear(nn.Linear):
    """``torch.nn.Linear``, of which the derivative along a path costs one matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the input times the weight, plus the bias."""
        return _layer(
            input, self.weight, super().forward, lambda w: functional.linear(w, self.weight)
        )


@final
class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``, of which the derivative along a path costs one convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of the input, plus the bias."""
        return _layer(
            input, self.weight, super().forward, lambda w: self._conv_forward(w, self.weight, None)
        )


def shifted(x: Tensor, constant: Tensor | float) -> Tensor:
    """Sum of x and a constant, which is broadcast to it."""
    value, tangent = _parts(x)
    return value + constant if tangent is None else forward_ad.make_dual(value + constant, tangent)


def scaled(x: Tensor, factor: Tensor | float) -> Tensor:
    """Product of x and a factor that depends on nothing."""
    value, tangent = _parts(x)
    y = value * factor
    return y if tangent is None else forward_ad.make_dual(y, tangent * factor)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The sum x (1 + scale) + shift, the identity where both are zero."""
    return x * shifted(scale, 1.0) + shift
