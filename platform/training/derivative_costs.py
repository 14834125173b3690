"""What each way to differentiate along a path costs a step of training, and how exact it is."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from ...methods.core.flow_map import FlowMap
from ...methods.core.precision import Precision
from ...methods.nets.affine import with_torch_layers
from .derivative_probe import DerivativeProbe
from .peak_memory import peak_bytes

_CALCULUS: Final = "onestep.methods.core.calculus"
_ROUNDS: Final = 7
_STEPS: Final = (0.02, 0.005, 0.001, 0.0003)
"""Lengths of a difference; of each kind the one with the least error is taken."""
_TOLERATED: Final = 1e-2
"""Relative error that stays below the noise of a training target."""
_WORTHWHILE: Final = 0.97
"""Share of the exact derivative's step below which a difference is preferred to it."""


@final
@dataclass(frozen=True, kw_only=True)
class DerivativeCost:
    """One way to differentiate, seen in a step of training.

    Attributes:
        name: What it is called.
        node: Configuration node that chooses it; empty for one that stands for comparison alone.
        step: Time of a step over that of a step without a derivative.
        memory: Most memory of a step over that of a step without a derivative.
        error: Norm of its error over the norm of the derivative, both against float64.
        refusal: Why the network does not take it; the numbers are then infinite.
    """

    name: str
    node: Mapping[str, Any] = field(default_factory=dict)
    step: float = math.inf
    memory: float = math.inf
    error: float = math.inf
    refusal: str = ""


def measure(
    net: FlowMap,
    shape: tuple[int, ...],
    classes: int,
    *,
    rows: int = 64,
    off: int = 16,
    precision: Precision = Precision.FLOAT32,
) -> tuple[DerivativeCost, ...]:
    """Time each way in turns, on the device of the network, and compare it with float64.

    A step is a regression of all rows on a constant, to which some rows add the derivative: forward
    and backward pass, no optimizer. The first entry differentiates the whole batch and keeps the
    graph, as a direct transcription of a paper does; the others are row-split. Those in forward
    mode have the algebraic split of value and tangent inside the layers (nets/affine.py), but for
    the one that shows what the split saves.

    Args:
        net: The network.
        shape: Shape of one datum.
        classes: Number of classes, 0 for none.
        rows: Rows of a step.
        off: How many of them lie off the diagonal.
        precision: Arithmetic of the network.

    Returns:
        One entry for each way.
    """
    probe = DerivativeProbe.of(net, shape, classes, rows=rows, off=off, precision=precision)
    exact = probe.exact()
    entries = [
        _Entry(name="whole batch, with graph", step=probe.whole_step, derivative=probe.whole),
        _entry(probe, "forward mode", ForwardMode()),
        _unsplit(probe),
        _entry(probe, *_best(probe, exact, "central difference", CentralDifference)),
        _entry(probe, *_best(probe, exact, "forward difference", ForwardDifference)),
    ]
    refused = [_refusal(entry) for entry in entries]
    taken = [entry for entry, refusal in zip(entries, refused, strict=True) if not refusal]
    device = probe.x.device
    seconds = iter(_ratios(probe.plain_step, [entry.step for entry in taken], device))
    least = peak_bytes(probe.cleared(probe.plain_step), device)
    costs: list[DerivativeCost] = []
    for entry, refusal in zip(entries, refused, strict=True):
        if refusal:
            costs.append(DerivativeCost(name=entry.name, node=entry.node, refusal=refusal))
            continue
        costs.append(
            DerivativeCost(
                name=entry.name,
                node=entry.node,
                step=next(seconds),
                memory=peak_bytes(probe.cleared(entry.step), device) / least,
                error=_relative(entry.derivative(), exact),
            )
        )
    return tuple(costs)


def recommend(costs: Sequence[DerivativeCost]) -> DerivativeCost:
    """The fastest way whose error is tolerable; the exact one unless another is worth while.

    Args:
        costs: What was measured.

    Returns:
        One that a method can take.

    Raises:
        ValueError: If there is none.
    """
    good = [cost for cost in costs if cost.node and cost.error <= _TOLERATED]
    if not good:
        raise ValueError(
            f"no derivative of this network has a relative error of at most {_TOLERATED:g}: "
            + "; ".join(f"{c.name} {c.refusal or format(c.error, '.1e')}" for c in costs if c.node)
        )
    best = min(good, key=lambda cost: cost.step)
    exact = next((cost for cost in good if cost.node["_target_"].endswith(".ForwardMode")), best)
    return best if best.step < _WORTHWHILE * exact.step else exact


@final
@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A way on its way into the table."""

    name: str
    step: Callable[[], None]
    derivative: Callable[[], Tensor]
    node: Mapping[str, Any] = field(default_factory=dict)


def _entry(probe: DerivativeProbe, name: str, way: AbstractDerivative) -> _Entry:
    node: dict[str, Any] = {"_target_": f"{_CALCULUS}.{type(way).__name__}"}
    if isinstance(way, CentralDifference | ForwardDifference):
        node["step"] = way.step
        name = f"{name} {way.step:g}"
    return _Entry(
        name=name,
        step=partial(probe.step, way),
        derivative=partial(probe.derivative, way),
        node=node,
    )


def _unsplit(probe: DerivativeProbe) -> _Entry:
    """Forward mode through torch's own layers."""
    twin = replace(probe, net=with_torch_layers(probe.net))
    return replace(_entry(twin, "forward mode, no split", ForwardMode()), node={})


def _best(
    probe: DerivativeProbe,
    exact: Tensor,
    name: str,
    kind: type[CentralDifference] | type[ForwardDifference],
) -> tuple[str, AbstractDerivative]:
    """The length of step with the least error; time and memory do not depend on it."""
    ways = [kind(step=step) for step in _STEPS]
    return name, min(ways, key=lambda way: _relative(probe.derivative(way), exact))


def _refusal(entry: _Entry) -> str:
    """Why the network does not take a way, or nothing; it warms up besides."""
    try:
        entry.step()
    except RuntimeError as error:  # NotImplementedError and a device out of memory among them
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _relative(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def _ratios(
    plain: Callable[[], None], steps: Sequence[Callable[[], None]], device: torch.device
) -> list[float]:
    """Median over rounds of each step's time over the plain one's in the same round."""
    plain()
    found: list[list[float]] = [[] for _ in steps]
    for _ in range(_ROUNDS):
        base = _seconds(plain, device)
        for ratios, step in zip(found, steps, strict=True):
            ratios.append(_seconds(step, device) / base)
    return [statistics.median(ratios) for ratios in found]


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
