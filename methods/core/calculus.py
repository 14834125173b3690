"""Derivatives along a path: the only place that calls forward-mode differentiation.

Its traps are known here and nowhere else. Fused attention kernels have no forward derivative, so
the plain one is pinned. Compiled graphs may lose tangents, so they are left. Autocast rounds
tangents to half precision, so it is switched off. The ways of ``AbstractDerivative`` keep no graph:
the derivative is a constant of the loss, and so is a difference of ``value_of``. Only
``derivative_along`` keeps one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

Function = Callable[..., Tensor]


class AbstractDerivative(ABC):
    """A way to differentiate a function along a direction."""

    @abstractmethod
    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        """Derivative of fn at a point along a tangent, without a graph, in float32 or better.

        Args:
            fn: A function of as many tensors as there are points.
            at: Where to differentiate.
            tangent: The direction, one tensor for each point and of its shape.
            value: fn(at), where it is known; of no use under autocast, which rounds it.
        """


@final
@dataclass(frozen=True, kw_only=True)
class ForwardMode(AbstractDerivative):
    """The exact derivative, by one forward-mode pass of twice a forward's cost."""

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        """Derivative of fn at a point along a tangent, without a graph, in float32 or better."""
        del value
        # Dual numbers cost less than torch.func.jvp, which wraps every tensor.
        with torch.no_grad(), _full_precision(at[0]), _traps(), forward_ad.dual_level():
            duals = [forward_ad.make_dual(x, w) for x, w in zip(at, tangent, strict=True)]
            derivative = forward_ad.unpack_dual(fn(*duals)).tangent
        assert derivative is not None, "a flow map depends on its state"
        return derivative


@final
@dataclass(frozen=True, kw_only=True)
class CentralDifference(AbstractDerivative):
    """(f(x + h w) - f(x - h w)) / 2h, by two forwards.

    Its error is of order h^2 plus rounding over h; any attention kernel will do.

    Fails by: where a row's interval is shorter than h or ends within h of 0 or 1, the function is
    asked at times out of order or outside [0, 1], at which no map is trained.

    Attributes:
        step: h, in units of time, in (0, 0.1].

    Raises:
        ValueError: If the step is out of range.
    """

    step: float = 0.005

    def __post_init__(self) -> None:
        _check_step(self.step)

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        """Derivative of fn at a point along a tangent, without a graph, in float32 or better."""
        del value
        with torch.no_grad(), _full_precision(at[0]):
            ahead = fn(*_moved(at, tangent, self.step))
            behind = fn(*_moved(at, tangent, -self.step))
        return (ahead - behind) / (2.0 * self.step)


@final
@dataclass(frozen=True, kw_only=True)
class ForwardDifference(AbstractDerivative):
    """(f(x + h w) - f(x)) / h, by one forward where the value is known, else by two.

    Its error is of order h plus rounding over h; any attention kernel will do.

    Fails by: where a row's interval is shorter than h, the function is asked at times out of order,
    or past 1, at which no map is trained.

    Attributes:
        step: h, in units of time, in (0, 0.1].

    Raises:
        ValueError: If the step is out of range.
    """

    step: float = 0.001

    def __post_init__(self) -> None:
        _check_step(self.step)

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        """Derivative of fn at a point along a tangent, without a graph, in float32 or better."""
        here = value_of(fn, at, known=value)
        return (value_of(fn, _moved(at, tangent, self.step)) - here) / self.step


@final
@dataclass(frozen=True, kw_only=True)
class FastestDerivative(AbstractDerivative):
    """Whichever way is fastest where the run trains, at an error that does not matter.

    It stands for a choice that the platform makes before a run, by measuring, and writes into the
    run's configuration in its place. It differentiates nothing.
    """

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        """Refuse: the choice has to be made before.

        Args:
            fn: Not looked at.
            at: Not looked at.
            tangent: Not looked at.
            value: Not looked at.

        Raises:
            ValueError: Always.
        """
        del fn, at, tangent, value
        raise ValueError(
            "derivative auto is measured and replaced when a run is launched: name one here, such "
            "as derivative@method.derivative=forward_mode"
        )


def value_of(fn: Function, at: Sequence[Tensor], *, known: Tensor | None = None) -> Tensor:
    """Value of fn at a point, without a graph, in float32 or better: for differences of values.

    Args:
        fn: A function of as many tensors as there are points.
        at: Where to evaluate it.
        known: fn(at), where it is known; of no use under autocast, which rounds it.
    """
    is_rounded = torch.is_autocast_enabled(at[0].device.type)
    if known is not None and not is_rounded:
        return known.detach()
    with torch.no_grad(), _full_precision(at[0]):
        return fn(*at)


def derivative_along(
    fn: Function, at: Sequence[Tensor], tangent: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Value and exact derivative of a function at a point along a tangent.

    Gradients flow through both unless the caller has switched them off. Both are in float32 or
    better.

    Args:
        fn: A function of as many tensors as there are points.
        at: Where to differentiate.
        tangent: The direction, one tensor for each point and of its shape.

    Returns:
        fn(at), and d fn(at + h tangent) / d h at h = 0.
    """
    with _full_precision(at[0]), _traps():
        pair: tuple[Tensor, Tensor] = torch.func.jvp(  # type: ignore[assignment]
            fn, tuple(at), tuple(tangent)
        )
    return pair


def dual_parts(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and tangent of a dual number, or x and None.

    They part only where no graph is recorded, which would have to know that they belong together.
    """
    return (x, None) if torch.is_grad_enabled() else forward_ad.unpack_dual(x)


def dual(value: Tensor, tangent: Tensor) -> Tensor:
    """The dual number of a value and a tangent."""
    return forward_ad.make_dual(value, tangent)


def _check_step(step: float) -> None:
    if not 0.0 < step <= 0.1:
        raise ValueError(f"derivative.step must lie in (0, 0.1], got {step}")


def _moved(at: Sequence[Tensor], tangent: Sequence[Tensor], step: float) -> list[Tensor]:
    return [x + step * w for x, w in zip(at, tangent, strict=True)]


@contextmanager
def _traps() -> Iterator[None]:
    """Keep to kernels that have a forward derivative, outside compiled graphs."""
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        yield


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
