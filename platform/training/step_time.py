"""The time of a step, measured on this machine with data of random numbers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

import torch

from ...methods.core.flow_map import FlowMap
from ...methods.core.game import AbstractGame
from .assembly import Assembly
from .place import place_of
from .stand_in import NoiseFeed
from .worker import learning_on

_ROWS_ON_A_CPU: Final = 8
_STEPS: Final = 2
_STEPS_OF_A_GAME: Final = 6  # one cycle of the usual turns


@final
@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A measured time, and what follows from it if all workers are like this one.

    Attributes:
        device: Where it was measured.
        rows: Rows of the measured steps.
        seconds_per_sample: Time of a sample on one worker.
        hours: Time of all samples, shared by the workers.
    """

    device: str
    rows: int
    seconds_per_sample: float
    hours: float


def step_time(assembly: Assembly, frozen: Mapping[str, FlowMap]) -> StepTime:
    """Take a few steps and measure them; on a CPU of a few rows, on a GPU of a whole share.

    Args:
        assembly: The things of the experiment.
        frozen: Frozen networks without memory; they get weights of zero, which play no role.

    Returns:
        The time.
    """
    experiment = assembly.experiment
    training, place = experiment.training, place_of(experiment)
    workers = experiment.workers.num_workers
    rows = training.batch_size // workers // training.accumulate
    if place.device.type == "cpu":
        rows = min(rows, _ROWS_ON_A_CPU)
    steps = _STEPS_OF_A_GAME if isinstance(assembly.learner, AbstractGame) else _STEPS
    weighty = {role: net.to_empty(device=place.device) for role, net in frozen.items()}
    for net in weighty.values():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.detach().zero_()
    feed = NoiseFeed(assembly, rows=rows)
    training_here = replace(
        training, samples=rows * 1000, batch_size=rows, shards=1, accumulate=1, ema_snapshots=0
    )
    learning = learning_on(
        assembly, feed, place, net=assembly.net(), frozen=weighty, training=training_here
    )
    learning.advance()  # the first step makes what the optimizer keeps
    _wait(place.device)
    start = time.perf_counter()
    for _ in range(steps):
        learning.advance()
    _wait(place.device)
    each = (time.perf_counter() - start) / (steps * rows)
    return StepTime(
        device=str(place.device),
        rows=rows,
        seconds_per_sample=each,
        hours=each * training.samples / workers / 3600.0,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
