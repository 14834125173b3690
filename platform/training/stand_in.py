"""Stand-ins: noise for data and random networks for parents, to try a method without either."""

from collections.abc import Sequence
from typing import Final, final

import torch

from ...methods.core.condition import Condition
from ...methods.core.flow_map import Domain, FlowMap
from ...methods.core.record import Batch, Moment
from ...methods.core.rng import Purpose, Rng
from ..experiment import Experiment
from .assembly import Assembly, parts_of
from .feed import AbstractFeed
from .learning import Learning
from .place import Place
from .worker import learning_on

_BATCHES: Final = 4
CAPTION_WORDS: Final = 8
"""Words of a caption that stands for one of the data."""


@final
class NoiseFeed(AbstractFeed):
    """Normal numbers in the shape of data, the same for the same seed and step.

    Args:
        assembly: The things of the experiment whose data it stands for.
        rows: Rows of the whole batch.
    """

    def __init__(self, assembly: Assembly, *, rows: int) -> None:
        source = assembly.source
        self._shape, self._batch_size = source.shape, rows
        self._classes, self._words = source.told_classes, len(source.vocabulary)
        self._paired = assembly.learner.needs.pairs is not None
        self._seed = assembly.experiment.seed

    @property
    def num_data(self) -> int:
        """A few batches of examples."""
        return _BATCHES * self._batch_size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """The rows of some shards of a batch."""
        rng = Rng.seeded(self._seed, step=now.step, shards=shards, purpose=Purpose.STAND_IN)
        rows = self._batch_size // of
        n, first = rows * len(shards), now.step % _BATCHES * self._batch_size
        places = [torch.arange(rows) + first + shard * rows for shard in shards]
        told = None
        if self._words:
            tokens = rng.integers(n * CAPTION_WORDS, below=self._words)
            told = Condition(tokens=tokens.reshape(n, CAPTION_WORDS))
        elif self._classes:
            told = Condition(label=rng.integers(n, below=self._classes))
        return Batch(
            x1=rng.normal(n, *self._shape),
            x0=rng.normal(n, *self._shape) if self._paired else None,
            condition=told,
            index=torch.cat(places),
        )


def stand_in(experiment: Experiment, place: Place) -> Learning:
    """The state of an experiment before its first step, without its data and its parents.

    The losses mean nothing; time, memory and the way of the gradients are those of the experiment.

    Args:
        experiment: What would be trained.
        place: Where this worker stands.

    Returns:
        The state.

    Raises:
        ValueError: If a part of the experiment is refused by its class.
    """
    assembly, frozen = parts_of(experiment), dict[str, FlowMap]()
    for number, role in enumerate(sorted(assembly.learner.needs.frozen), start=1):
        frozen[role] = shaken(assembly.net(), seed=number)
        frozen[role].domain = Domain()
    feed = NoiseFeed(assembly, rows=experiment.training.batch_size)
    return learning_on(assembly, feed, place, net=shaken(assembly.net(), seed=0), frozen=frozen)


def shaken(net: FlowMap, *, seed: int) -> FlowMap:
    """A network whose weights have moved a little: fresh ones often give zero whatever they get.

    Args:
        net: The network, which is changed.
        seed: Seed of the moves.

    Returns:
        The same network.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            move = 0.02 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(move.to(parameter))
    return net
