"""What each way to differentiate along a path costs for a network, and how exact it is."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor

from ...methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardDifference,
    ForwardMode,
)
from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.rng import Rng

_CALCULUS: Final = "onestep.methods.core.calculus"
_REPEATS: Final = 5
_STEPS: Final = (0.02, 0.005, 0.001)
_TOLERATED: Final = 1e-2
"""Relative error that stays below the noise of a training target."""


@final
@dataclass(frozen=True, kw_only=True)
class DerivativeCost:
    """One way to differentiate.

    Attributes:
        name: What it is called.
        node: Configuration node that chooses it.
        ratio: Its time, where the value is known, over that of a forward pass without a graph.
        error: Norm of its error over the norm of the derivative, both against float64.
    """

    name: str
    node: Mapping[str, Any]
    ratio: float
    error: float


def measure(
    net: FlowMap, shape: tuple[int, ...], classes: int, *, rows: int = 64
) -> tuple[DerivativeCost, ...]:
    """Time each way on the same rows, in turns, and compare it with float64.

    A fresh network often starts at zero; its weights are shaken, so that there is something to
    differentiate.

    Args:
        net: The network.
        shape: Shape of one datum.
        classes: Number of classes, 0 for none.
        rows: Rows of a call.

    Returns:
        One entry for each way.
    """
    net = copy.deepcopy(net).float().eval()
    _shake(net)
    rng = Rng.seeded(0)
    x, v = rng.normal(rows, *shape), rng.normal(rows, *shape)
    s = 0.9 * rng.uniform(rows)
    t = s + 0.1
    condition = Condition(label=rng.integers(rows, below=classes)) if classes else None
    at, tangent = (x, s, t), (v, torch.ones_like(s), torch.zeros_like(t))
    exact = _along(copy.deepcopy(net).double(), ForwardMode(), at, tangent, condition, torch.double)
    value = _forward(net, at, condition)
    ways: list[tuple[str, AbstractDerivative, dict[str, Any]]] = [
        ("forward mode", ForwardMode(), {"_target_": f"{_CALCULUS}.ForwardMode"})
    ]
    for kind in (CentralDifference, ForwardDifference):
        name = "central" if kind is CentralDifference else "forward"
        for step in _STEPS:
            node = {"_target_": f"{_CALCULUS}.{kind.__name__}", "step": step}
            ways.append((f"{name} difference {step:g}", kind(step=step), node))
    calls: list[Callable[[], object]] = [partial(_forward, net, at, condition)]
    for _, way, _ in ways:
        calls.append(partial(_along, net, way, at, tangent, condition, torch.float, value))
    seconds = _interleaved(calls)
    return tuple(
        DerivativeCost(
            name=name,
            node=node,
            ratio=taken / seconds[0],
            error=_relative(_along(net, way, at, tangent, condition, torch.float, value), exact),
        )
        for (name, way, node), taken in zip(ways, seconds[1:], strict=True)
    )


def recommend(costs: Sequence[DerivativeCost]) -> DerivativeCost:
    """The cheapest way whose error is tolerable; forward mode is always tolerable."""
    good = [cost for cost in costs if cost.error <= _TOLERATED]
    return min(good, key=lambda cost: cost.ratio)


def _shake(net: FlowMap) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def _forward(net: FlowMap, at: Sequence[Tensor], condition: Condition | None) -> Tensor:
    with torch.no_grad():
        u: Tensor = net(*at, condition)
    return u


def _along(
    net: FlowMap,
    way: AbstractDerivative,
    at: Sequence[Tensor],
    tangent: Sequence[Tensor],
    condition: Condition | None,
    dtype: torch.dtype,
    value: Tensor | None = None,
) -> Tensor:
    return way.along(
        lambda x, s, t: net(x, s, t, condition),
        [part.to(dtype) for part in at],
        [part.to(dtype) for part in tangent],
        value=value,
    )


def _relative(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def _interleaved(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least time of each call over rounds in which all take their turn."""
    best = [float("inf")] * len(calls)
    for _ in range(_REPEATS + 1):
        for k, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            best[k] = min(best[k], time.perf_counter() - begin)
    return best
