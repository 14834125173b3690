"""The least time of a run: operations over a speed that the machine was seen to reach."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from onestep.methods.core.precision import Precision
from onestep.platform.experiment import Experiment, Workers
from onestep.platform.training.least_time import flops_per_s, least_time
from onestep.tests.platform.training.recipe import FLOW_MATCHING, recipe

CPU = torch.device("cpu")


class Watch(TorchDispatchMode):
    """Speeds and types of the products and convolutions, and how much they are in all."""

    def __init__(self) -> None:
        super().__init__()
        self.speeds = dict[str, list[float]]()
        self.types = set[torch.dtype]()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        begin = time.perf_counter()
        made: torch.Tensor = func(*args, **(kwargs or {}))
        taken = time.perf_counter() - begin
        name = func.overloadpacket.__name__
        if name in ("mm", "convolution"):
            each = len(made) if name == "mm" else args[1][0].numel()
            flops = 2 * made.numel() * each
            self.flops += flops
            self.types.add(made.dtype)
            self.speeds.setdefault(name, []).append(flops / taken)
        return made


def experiment(num_workers: int = 1) -> Experiment:
    values = recipe(FLOW_MATCHING, steps=10, training={"precision": "float32"})
    return replace(Experiment.from_dict(values), workers=Workers(num_workers=num_workers))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        (Precision.FLOAT32, torch.float32),
        (Precision.FLOAT64, torch.float64),
        (Precision.BFLOAT16, torch.bfloat16),
    ],
)
def test_the_speed_is_the_best_that_was_seen_in_the_arithmetic_of_the_networks(
    precision: Precision, dtype: torch.dtype
) -> None:
    """However busy the machine is: below the best from inside, above the mean from outside."""
    with Watch() as watch:
        begin = time.perf_counter()
        speed = flops_per_s(CPU, precision)
        taken = time.perf_counter() - begin
    assert watch.types == {dtype}
    assert watch.flops / taken <= speed <= max(max(each) for each in watch.speeds.values())
    assert watch.speeds.keys() == {"mm", "convolution"}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_share_the_operations(num_workers: int) -> None:
    found = least_time(experiment(num_workers), 10**12)
    assert found.device == "cpu"
    seconds = 10**12 / found.flops_per_s / num_workers
    assert found.hours_at_least == pytest.approx(seconds / 3600.0)


def test_without_operations_there_is_a_speed_alone() -> None:
    found = least_time(experiment(), None)
    assert found.flops_per_s > 0.0
    assert found.hours_at_least is None
