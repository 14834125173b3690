"""The rehearsal: what only a loss on the data can refuse is refused before the run exists."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ..data.pairs import PairSet
from ..data.source import Dataset
from .assembly import Assembly
from .learning import Learning
from .place import Place, place_of
from .worker import feed_on, learning_on

_ROWS: Final = 8
"""Rows that show as much as a batch does: with the usual shares, some lie off the diagonal."""
_FIRST_STEPS: Final = 32
"""Steps at the start of a run among which each player of a game is looked for."""


def rehearse(assembly: Assembly, data: Dataset | PairSet) -> None:
    """Compute the loss on a few rows, at the first and at the last step, and keep nothing of it.

    Args:
        assembly: The things of the experiment.
        data: What is trained on, or examples of it.

    Raises:
        ValueError: If parents, data or batch do not fit the experiment, or the loss refuses them.
    """
    experiment = assembly.experiment
    # Compilation would take longer than everything else here.
    eager = replace(experiment, training=replace(experiment.training, compile=False))
    assembly = replace(assembly, experiment=eager)
    # The GPUs of Ray's workers are theirs alone.
    place = Place() if experiment.workers.uses_ray else place_of(experiment)
    learning = learning_on(assembly, feed_on(assembly, data), place)
    rows = experiment.training.batch_size // experiment.training.shards
    for step in _steps(learning, experiment.training.steps):
        learning.step = step
        try:
            learning.rehearse(min(_ROWS, rows))
        except (ValueError, RuntimeError):
            learning.rehearse(rows)  # a method may group the rows of a shard: all of them decide


def _steps(learning: Learning, total: int) -> Iterator[int]:
    """The first step, the last one, and early ones at which a player moves for the first time."""
    seen = set[str]()
    for step in (*range(min(_FIRST_STEPS, total - 1)), total - 1):
        learning.step = step
        new = set(learning.players) - seen
        if new or step in (0, total - 1):
            yield step
        seen |= new
