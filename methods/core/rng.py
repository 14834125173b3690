"""Random numbers drawn shard by shard: how a batch is spread over workers never changes them."""

from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import Self, final

import torch
from torch import Tensor

_STREAM = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: an odd multiplier that mixes well
_MASK = 2**63 - 1


@final
@unique
class Purpose(IntEnum):
    """What random numbers are for: the same numbers mixed for two purposes give two streams.

    A new purpose takes a new number; one that is moved changes every result.
    """

    POINTS = 0  # of a set in the plane; zero leaves no trace, so they are what they always were
    STEP = 1  # what a method draws in a step of training
    ROWS = 2  # which pairs are in a batch, which images are mirrored
    ORDER = 3  # of the examples in an epoch
    STREAM = 4  # order of a set that is streamed
    WEIGHTS = 5  # initial ones
    COMPANIONS = 6  # their initial weights
    DROPOUT = 7
    KEPT_NOISE = 8  # which a coupling keeps for each datum
    BLOCKS = 9  # into which a coupling cuts the set
    SAMPLES = 10  # noise of those that are served, shown or judged
    PAIRS = 11  # noise of those that are trained on
    HELD_OUT = 12  # part of the data on which a model is judged
    BASELINE = 13  # floors and trivial generators
    STAND_IN = 14  # noise in the place of data
    PROBES = 15  # noise on which a run in training is probed


def mix(purpose: Purpose, *words: int) -> int:
    """One seed from several numbers, such as (seed, step, shard), for a purpose."""
    state = 0
    for word in (purpose, *words):
        state = (state ^ (word & (2**64 - 1))) * _STREAM & (2**64 - 1)
        state ^= state >> 29
    return state & _MASK


@final
class Rng:
    """The random streams of the shards of one batch.

    A batch is cut into a fixed number of shards, a part of the recipe. Each shard draws from its
    own generator, and a draw for the whole batch is the draws of the shards one after the other.
    A worker that holds some of the shards therefore draws exactly the rows that belong to it.

    Args:
        generators: One generator for each shard that is present.

    Raises:
        ValueError: If a number of rows is not a multiple of the number of shards.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        assert generators, "a batch has at least one shard"
        self._generators = tuple(generators)

    @classmethod
    def seeded(
        cls,
        seed: int,
        *,
        step: int = 0,
        shards: Sequence[int] = (0,),
        device: str = "cpu",
        purpose: Purpose = Purpose.STEP,
    ) -> Self:
        """The streams of these shards at this step: a pure function of its arguments."""
        return cls(
            [
                torch.Generator(device).manual_seed(mix(purpose, seed, step, shard))
                for shard in shards
            ]
        )

    @property
    def shards(self) -> int:
        """How many shards are present."""
        return len(self._generators)

    def rows_per_shard(self, n: int) -> int:
        """Rows of each shard in a batch of n."""
        if n % self.shards:
            raise ValueError(f"batch of {n} rows cannot be cut into {self.shards} equal shards")
        return n // self.shards

    def _draw(self, n: int, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        rows = self.rows_per_shard(n)
        parts = [draw(rows, generator) for generator in self._generators]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _device(self) -> torch.device:
        return self._generators[0].device

    def uniform(self, n: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform numbers in [0, 1), shape [n, *shape]."""
        return self._draw(
            n, lambda m, g: torch.rand(m, *shape, generator=g, dtype=dtype, device=self._device())
        )

    def normal(self, n: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers, shape [n, *shape]."""
        return self._draw(
            n, lambda m, g: torch.randn(m, *shape, generator=g, dtype=dtype, device=self._device())
        )

    def integers(self, n: int, *, below: int) -> Tensor:
        """Integers in [0, below), shape [n]."""
        return self._draw(
            n, lambda m, g: torch.randint(below, (m,), generator=g, device=self._device())
        )

    def by_shard(self) -> list["Rng"]:
        """One stream of its own for each shard, for work that is done shard by shard."""
        return [Rng([generator]) for generator in self._generators]

    @classmethod
    def joined(cls, parts: Sequence["Rng"]) -> Self:
        """The streams of several, one after the other; they go on where they are."""
        return cls([generator for part in parts for generator in part._generators])
