"""Latency: how long one batch of samples takes, under conditions that travel with the number."""

import time
from collections.abc import Callable, Sequence
from math import comb
from typing import Final

import torch

from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.noise import draw_noise
from ...methods.core.sampler import AbstractSampler
from .report import Measurement
from .sampling import device_of

LATENCY: Final = "latency/sample_ms"
"""Milliseconds for one sample: the median time of a batch, divided by its size."""
LEAST_REPEATS: Final = 6
"""With fewer, no two of the times enclose the median with a chance of 95 %."""
_WARM_UP: Final = 3
_MS: Final = 1000.0


def latency_of(
    flow_map: FlowMap,
    sampler: AbstractSampler,
    *,
    nfe: int,
    shape: tuple[int, ...],
    condition: Condition | None,
    batch_size: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Time a sampler on a map, where the map lies and with the threads that torch has now.

    The noise is there before the clock starts, and what becomes of samples at the end (clipped,
    decoded) comes after it has stopped. The first batches are not counted.

    Args:
        flow_map: The map, in evaluation mode.
        sampler: How it is sampled.
        nfe: Evaluations of the map for one sample.
        shape: Shape of one sample.
        condition: What the samples of a batch are asked to be, or None.
        batch_size: Samples of a batch.
        repeats: Batches that are timed, at least 6.
        clock: Seconds that only grow.

    Returns:
        The median with its interval at 95 %; the count is the batch size, the draws the repeats,
        the space the device and the threads.

    Raises:
        ValueError: If the batch is empty, or there are too few repeats for an interval.
    """
    if batch_size < 1 or repeats < LEAST_REPEATS:
        raise ValueError(
            f"a latency needs batches of at least 1 and {LEAST_REPEATS} repeats, "
            f"got {batch_size} and {repeats}"
        )
    device = device_of(flow_map)
    noise = draw_noise(batch_size, shape, seed=0, draws=sampler.draws).to(device)
    told = None if condition is None else condition.to(device)
    times = []
    for number in range(_WARM_UP + repeats):
        _wait(device)
        begin = clock()
        sampler.sample(flow_map, noise, told)
        _wait(device)
        if number >= _WARM_UP:
            times.append((clock() - begin) * _MS / batch_size)
    median, low, high = median_interval(times)
    return Measurement(
        name=LATENCY,
        value=median,
        interval=(low, high),
        count=batch_size,
        draws=repeats,
        space=_place(device),
        nfe=nfe,
        sampler=str(sampler),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of independent values and the two of them that enclose that of their law.

    They do so with a chance of at least 95 %, whatever the law: the k-th value from below is above
    the median with the chance that fewer than k of n coins show heads.

    Args:
        values: At least 6.

    Returns:
        Median, lower and upper end.
    """
    ordered, n = sorted(values), len(values)
    missed, k = 0.5**n, 0
    while (missed + comb(n, k + 1) * 0.5**n) <= 0.025:
        k += 1
        missed += comb(n, k) * 0.5**n
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2.0
    return middle, ordered[k], ordered[n - 1 - k]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _place(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
