"""Affine maps whose forward-mode derivative costs what it has to.

A dual number goes through torch's own layers as two products: of the tangent with the weight, and
of the value with the weight's tangent. Weights and constants have none here, and the second product
multiplies by zeros, which takes as long, or longer.
"""

import copy
from collections.abc import Callable
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from ..core.calculus import dual, dual_parts
from ..core.flow_map import FlowMap


def _layer(
    x: Tensor, weight: Tensor, whole: Callable[[Tensor], Tensor], linear: Callable[[Tensor], Tensor]
) -> Tensor:
    """A layer at x: all of it at the value, its linear part at the tangent."""
    value, tangent = dual_parts(x)
    if tangent is None or dual_parts(weight)[1] is not None:
        return whole(x)
    return dual(whole(value), linear(tangent))


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


def with_torch_layers(net: FlowMap) -> FlowMap:
    """A copy of a network whose layers multiply by the zeros too, to compare with.

    Args:
        net: A network, with layers of this module or without.

    Returns:
        The same function of the same weights.
    """
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if isinstance(module, Linear):
            module.__class__ = nn.Linear  # type: ignore[assignment]
        elif isinstance(module, Conv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return twin


def shifted(x: Tensor, constant: Tensor | float) -> Tensor:
    """Sum of x and a constant, which is broadcast to it."""
    value, tangent = dual_parts(x)
    return value + constant if tangent is None else dual(value + constant, tangent)


def scaled(x: Tensor, factor: Tensor | float) -> Tensor:
    """Product of x and a factor that depends on nothing."""
    value, tangent = dual_parts(x)
    y = value * factor
    return y if tangent is None else dual(y, tangent * factor)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The sum x (1 + scale) + shift, the identity where both are zero."""
    return x * shifted(scale, 1.0) + shift
