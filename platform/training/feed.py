"""The feed: which rows a worker sees at a step, as a pure function of the seed and the step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, final

import torch
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.method import PairMix
from ...methods.core.record import Batch, Moment
from ...methods.core.rng import Purpose, Rng
from ...methods.core.schedule import require_range
from ..data.augmentation import flip_rows
from ..data.order import indices
from ..data.pairs import Pairs, PairSet
from ..data.source import Dataset
from ..data.stream import StreamedBatch

Epochs = Callable[[int], Iterator[StreamedBatch]]
"""Gives the batches of an epoch."""

FIRST: Final = {"epoch": 0, "taken": 0}
"""Position of a stream from which nothing has been taken."""


class AbstractFeed(ABC):
    """Rows for any shards at any step."""

    @property
    @abstractmethod
    def num_data(self) -> int:
        """How many examples there are."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @abstractmethod
    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """The rows of some shards of a batch.

        Args:
            now: The moment; its random numbers are not used.
            shards: Which shards of the batch.
            of: How many shards the whole batch has.

        Returns:
            Their rows, shard after shard.
        """


def _joined(parts: Sequence[Condition | None]) -> Condition | None:
    given = [part for part in parts if part is not None]
    return Condition.joined(given) if given else None


@final
class DataFeed(AbstractFeed):
    """The training examples of a set, each once an epoch.

    Args:
        dataset: The set.
        seed: Seed of the order.
        batch_size: Rows of the whole batch.

    Raises:
        ValueError: If the batch is larger than the set.
    """

    def __init__(self, dataset: Dataset, *, seed: int, batch_size: int) -> None:
        self._dataset, self._seed, self._batch_size = dataset, seed, batch_size
        indices(self.num_data, batch_size, 0, seed)  # refuses a batch that is too large

    @property
    def num_data(self) -> int:
        """How many examples there are."""
        return len(self._dataset.train)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._dataset.shape

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """The rows of some shards of a batch."""
        whole = indices(self.num_data, self._batch_size, now.step, self._seed)
        index = whole.reshape(of, -1)[list(shards)].reshape(-1)
        x1, _ = self._dataset.train.take(index)
        if self._dataset.horizontal_flip:
            rng = Rng.seeded(self._seed, step=now.step, shards=shards, purpose=Purpose.ROWS)
            x1 = flip_rows(x1, rng)
        return Batch(x1=x1, condition=self._dataset.train.condition(index), index=index)

    def whole(self) -> Batch:
        """All examples in their order, without augmentation."""
        x1, _ = self._dataset.train.everything()
        return Batch(
            x1=x1, condition=self._dataset.train.condition(), index=torch.arange(self.num_data)
        )


@final
class PairFeed(AbstractFeed):
    """Stored pairs, drawn with replacement, in the shares that the method asks for.

    A share that is no whole number of rows is met on average: each shard rounds it up as often as
    the part after the point says.

    Args:
        pairs: The set.
        mix_of: Share of the generated pairs in a batch.
        seed: Seed of the draws.
        batch_size: Rows of the whole batch.

    Raises:
        ValueError: If the method asks for a kind of pairs that the set does not hold.
    """

    def __init__(self, pairs: PairSet, mix_of: PairMix, *, seed: int, batch_size: int) -> None:
        self._pairs, self._mix, self._seed, self._batch_size = pairs, mix_of, seed, batch_size
        if not len(pairs.real):
            _require_no_real(mix_of)

    @property
    def num_data(self) -> int:
        """How many pairs there are."""
        return len(self._pairs.generated) + len(self._pairs.real)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self._pairs.generated.x1.shape[1:])

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """The rows of some shards of a batch."""
        each, share = self._batch_size // of, self._mix.generated(now)
        parts = [self._shard(now.step, shard, each, share) for shard in shards]
        x0, x1, condition, index = (list(column) for column in zip(*parts, strict=True))
        return Batch(
            x1=torch.cat(x1),
            x0=torch.cat(x0),
            condition=_joined(condition),
            index=torch.cat(index),
        )

    def _shard(
        self, step: int, shard: int, each: int, share: float
    ) -> tuple[Tensor, Tensor, Condition | None, Tensor]:
        rng = Rng.seeded(self._seed, step=step, shards=(shard,), purpose=Purpose.ROWS)
        made = _rounded(share * each, rng)
        generated, given = self._pairs.generated, self._pairs.real
        taken: list[tuple[Pairs, Tensor, int]] = []
        for pairs, many, first in ((generated, made, 0), (given, each - made, len(generated))):
            if many:
                taken.append((pairs, rng.integers(many, below=len(pairs)), first))
        told = [None if p.condition is None else p.condition[rows] for p, rows, _ in taken]
        return (
            torch.cat([pairs.x0[rows] for pairs, rows, _ in taken]),
            torch.cat([pairs.x1[rows] for pairs, rows, _ in taken]),
            _joined(told),
            torch.cat([rows + first for _, rows, first in taken]),
        )


def _rounded(number: float, rng: Rng) -> int:
    """A whole number next to a number, which is their mean; a whole number is itself."""
    below = math.floor(number)
    if number == below:
        return below
    return below + int(rng.uniform(1, dtype=torch.float64).item() < number - below)


def _require_no_real(mix_of: PairMix) -> None:
    try:
        require_range("share of generated pairs", mix_of.generated, 1.0, 1.0)
    except ValueError as error:
        raise ValueError(
            "the method mixes in real pairs, got a set without any; generate them with "
            "pairs.real=true, or set method.generated to a constant 1"
        ) from error


@final
class BatchStream:
    """The batches of a worker, one epoch after the other, and how far they have been taken.

    Args:
        epochs: Gives the batches of an epoch, each with the rows of this worker.
    """

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self.go_to(FIRST)

    @property
    def position(self) -> Mapping[str, int]:
        """The epoch, and how many of its batches have been taken."""
        return {"epoch": self._epoch, "taken": self._taken}

    def go_to(self, position: Mapping[str, int]) -> None:
        """Go on from a position; the batches before it are read and left out.

        Args:
            position: What ``position`` gave.
        """
        self._epoch, self._taken = position["epoch"], position["taken"]
        self._batches = islice(self._epochs(self._epoch), self._taken, None)

    def take(self) -> StreamedBatch:
        """The next batch.

        Returns:
            The batch.

        Raises:
            ValueError: If a whole epoch has none.
        """
        while (batch := next(self._batches, None)) is None:
            if not self._taken:
                raise ValueError(
                    "an epoch of a stream must have a batch for every worker, got none: lower "
                    "training.batch_size"
                )
            self.go_to({"epoch": self._epoch + 1, "taken": 0})
        self._taken += 1
        return batch


@final
class StreamFeed(AbstractFeed):
    """Rows as a stream delivers them to this worker; the step does not say which.

    Args:
        stream: Their batches.
        shape: Shape of one example.
        labelled: Whether the labels of the stream mean anything.
        flip: Seed of the mirroring of rows, or None for none.
    """

    def __init__(
        self, stream: BatchStream, *, shape: tuple[int, ...], labelled: bool, flip: int | None
    ) -> None:
        self._stream, self._shape, self._labelled, self._flip = stream, shape, labelled, flip

    @property
    def num_data(self) -> int:
        """Unknown; couplings that would need it are refused when the experiment is assembled."""
        return 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """The next rows of this worker."""
        del of
        batch = self._stream.take()
        x1 = batch["x"]
        if self._flip is not None:
            rng = Rng.seeded(self._flip, step=now.step, shards=shards, purpose=Purpose.ROWS)
            x1 = flip_rows(x1, rng)
        condition = Condition(label=batch["label"]) if self._labelled else None
        return Batch(x1=x1, condition=condition, index=batch["index"])
