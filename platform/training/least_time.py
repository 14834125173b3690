"""The least time of a run: its counted operations at the best speed that this machine shows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional

from ...methods.core.precision import Precision
from ..experiment import Experiment
from .place import place_of

_SIDE: Final = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices that are multiplied; small ones keep no GPU at work."""
_ROWS: Final = {"cpu": 8, "cuda": 512}
"""Images that are convolved."""
_CHANNELS: Final = 256
_IMAGE: Final = 16
_KERNEL: Final = 3
_ROUNDS: Final = 5
_LONG_S: Final = 0.2
"""Rounds end after so many seconds."""


@final
@dataclass(frozen=True, kw_only=True)
class LeastTime:
    """What the operations of a run take if nothing else takes time.

    A whole step takes longer: layers that multiply no matrices, memory and the optimizer are not
    counted, and few products are as fast as large ones.

    Attributes:
        device: Where the speed was measured.
        flops_per_s: Floating-point operations in a second, of a large matrix product or of a
            convolution, whichever is faster.
        hours_at_least: Time of all samples, shared by workers like this one; None if their
            operations could not be counted.
    """

    device: str
    flops_per_s: float
    hours_at_least: float | None


def least_time(experiment: Experiment, flops: int | None) -> LeastTime:
    """Measure the speed of this machine, and divide by it.

    Args:
        experiment: The experiment.
        flops: Floating-point operations of all samples, or None.

    Returns:
        The time.
    """
    device = place_of(experiment).device
    speed = flops_per_s(device, experiment.training.precision)
    share = None if flops is None else flops / experiment.workers.num_workers
    return LeastTime(
        device=str(device),
        flops_per_s=speed,
        hours_at_least=None if share is None else share / speed / 3600.0,
    )


def flops_per_s(device: torch.device, precision: Precision) -> float:
    """Floating-point operations in a second of what a network is mostly made of.

    Args:
        device: Where.
        precision: In which arithmetic.

    Returns:
        The higher of the speeds of a matrix product and of a convolution: a GPU may take fewer
        digits for the one than for the other.
    """
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else precision.dtype
    make = partial(torch.full, fill_value=0.5, device=device, dtype=dtype)
    side, rows = _SIDE[device.type], _ROWS[device.type]
    matrix = make((side, side))
    images = make((rows, _CHANNELS, _IMAGE, _IMAGE))
    kernel = make((_CHANNELS, _CHANNELS, _KERNEL, _KERNEL))
    product = 2 * side**3
    convolution = 2 * images.numel() * _CHANNELS * _KERNEL**2
    with torch.no_grad():
        return max(
            product / _least_s(lambda: matrix @ matrix, device),
            convolution / _least_s(lambda: functional.conv2d(images, kernel, padding=1), device),
        )


def _least_s(compute: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the fastest of a few rounds after the first."""
    compute()
    wait(device)
    begin, found = time.perf_counter(), list[float]()
    while len(found) < _ROUNDS and (not found or time.perf_counter() - begin < _LONG_S):
        start = time.perf_counter()
        compute()
        wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given.

    Args:
        device: The device; a CPU has.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
