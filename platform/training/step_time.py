"""The time of a step, measured on this machine with data of random numbers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch

from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.game import AbstractGame
from ...methods.core.record import Batch, Moment
from ..build import build
from .assembly import Assembly
from .feed import AbstractFeed
from .learning import Learning, OptimizerFactory
from .place import place_of

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
    optimizer: OptimizerFactory = build(experiment.optimizer, object)  # type: ignore[assignment]
    learning = Learning(
        assembly.learner,
        assembly.net().to(place.device),
        weighty,
        optimizer=optimizer,
        learning_rate=assembly.learning_rate,
        feed=_RandomFeed(assembly.source.shape, classes=assembly.source.classes, rows=rows),
        training=replace(
            training, samples=rows * 1000, batch_size=rows, shards=1, accumulate=1, ema_snapshots=0
        ),
        seed=experiment.seed,
        place=place,
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


@final
class _RandomFeed(AbstractFeed):
    """The same random rows at every step, with noise for methods that train on pairs.

    Args:
        shape: Shape of one example.
        classes: Classes of the labels, 0 for none.
        rows: Rows of a batch.
    """

    def __init__(self, shape: tuple[int, ...], *, classes: int, rows: int) -> None:
        rng = torch.Generator().manual_seed(0)
        label = torch.arange(rows) % classes if classes else None
        self._shape = shape
        self._batch = Batch(
            x1=torch.randn(rows, *shape, generator=rng),
            x0=torch.randn(rows, *shape, generator=rng),
            index=torch.arange(rows),
            condition=None if label is None else Condition(label=label),
        )

    @property
    def num_data(self) -> int:
        """As many as there are rows."""
        return len(self._batch)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """All rows."""
        return self._batch
