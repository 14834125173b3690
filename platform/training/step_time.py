"""The time of a step, measured on this machine with data of random numbers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from ...methods.core.flow_map import FlowMap
from ...methods.core.game import AbstractGame
from .assembly import Assembly
from .least_time import wait
from .place import place_of
from .stand_in import NoiseFeed
from .worker import learning_on

_FEWEST_ROWS: Final = 8
_LONG_S: Final = 0.2
"""A step on a CPU that takes longer is not tried with more rows."""
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
    """Take a few steps and measure them, of a whole share of rows unless that takes too long.

    Args:
        assembly: The things of the experiment.
        frozen: Frozen networks without memory; they get weights of zero, which play no role.

    Returns:
        The time.
    """
    experiment = assembly.experiment
    training, place = experiment.training, place_of(experiment)
    workers = experiment.workers.num_workers
    share = training.batch_size // workers // training.accumulate
    rows = share if place.device.type != "cpu" else min(share, _FEWEST_ROWS)
    weighty = {role: net.to_empty(device=place.device) for role, net in frozen.items()}
    for net in weighty.values():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.detach().zero_()
    each = _seconds(assembly, weighty, rows=rows)
    while rows < share and rows * each < _LONG_S:
        rows = min(share, 4 * rows)
        each = _seconds(assembly, weighty, rows=rows)
    return StepTime(
        device=str(place.device),
        rows=rows,
        seconds_per_sample=each,
        hours=each * training.samples / workers / 3600.0,
    )


def _seconds(assembly: Assembly, frozen: Mapping[str, FlowMap], *, rows: int) -> float:
    """Seconds of a sample in steps of so many rows."""
    training, place = assembly.experiment.training, place_of(assembly.experiment)
    steps = _STEPS_OF_A_GAME if isinstance(assembly.learner, AbstractGame) else _STEPS
    training_here = replace(
        training, samples=rows * 1000, batch_size=rows, shards=1, accumulate=1, ema_snapshots=0
    )
    learning = learning_on(
        assembly,
        NoiseFeed(assembly, rows=rows),
        place,
        net=assembly.net(),
        frozen=frozen,
        training=training_here,
    )
    learning.advance()  # the first step makes what the optimizer keeps
    wait(place.device)
    start = time.perf_counter()
    for _ in range(steps):
        learning.advance()
    wait(place.device)
    return (time.perf_counter() - start) / (steps * rows)
