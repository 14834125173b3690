"""Tilings: a jump cut into shorter ones, whose velocities add up to the velocity of the whole."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .count import require_whole
from .flow_map import FlowMap
from .record import Moment
from .shape import rows_like
from .time_law import AbstractTimeLaw, Uniform

_ROUNDING: Final = 1e-6


class Tile(NamedTuple):
    """A part of each jump of a batch, in shares of its length.

    Attributes:
        start: Where it starts, 0 at the start of the jump.
        end: Where it ends, 1 at the end of the jump.
        weight: Share of its velocity in that of the whole.
        after: The earlier tile at whose end it starts, by number; None if there is none.
        is_first: Whether it starts where the jump does. A tile that does neither is reached by a
            jump of its own from the start.
    """

    start: Float[Tensor, " b"]
    end: Float[Tensor, " b"]
    weight: Float[Tensor, " b"]
    after: int | None
    is_first: bool


class AbstractTiling(ABC):
    """A way to cut jumps.

    The velocity of a jump is the sum of w_i times the velocities of tiles that begin at the share
    alpha_i of its length and take the share beta_i, exactly where the tiles cover it once:

        sum_i (w_i / beta_i) 1[alpha_i, alpha_i + beta_i] = 1  almost everywhere

    For tiles that do not overlap the weights are the lengths.
    """

    @property
    @abstractmethod
    def is_dyadic(self) -> bool:
        """Whether it cuts a jump of length 2^-k from a multiple of it into jumps like it."""

    @abstractmethod
    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        """The tiles of n jumps."""


@final
@dataclass(frozen=True, kw_only=True)
class EqualTiles(AbstractTiling):
    """Tiles of one length.

    Attributes:
        count: How many, at least 2.

    Raises:
        ValueError: If there are fewer than two, or no whole number.
    """

    count: int = 2

    def __post_init__(self) -> None:
        require_whole("the count of equal tiles", self.count)
        if self.count < 2:
            raise ValueError(f"a jump is cut into at least 2 equal tiles, got {self.count}")

    @property
    def is_dyadic(self) -> bool:
        """Whether the count is a power of two."""
        return self.count & (self.count - 1) == 0

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        """The tiles of n jumps."""
        del now
        ends = [torch.full((n,), k / self.count, dtype=dtype) for k in range(self.count + 1)]
        return _chain(ends)


@final
@dataclass(frozen=True, kw_only=True)
class TwoTiles(AbstractTiling):
    """Two tiles of given lengths.

    Attributes:
        split: Share of the first, in (0, 1).

    Raises:
        ValueError: If the share is out of range.
    """

    split: float = 2.0 / 3.0

    def __post_init__(self) -> None:
        if not 0.0 < self.split < 1.0:
            raise ValueError(f"two tiles are split inside (0, 1), got {self.split}")

    @property
    def is_dyadic(self) -> bool:
        """Whether both are halves."""
        return self.split == 0.5

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        """The tiles of n jumps."""
        del now
        return _chain([torch.full((n,), end, dtype=dtype) for end in (0.0, self.split, 1.0)])


@final
@dataclass(frozen=True, kw_only=True)
class RandomTiles(AbstractTiling):
    """Two tiles, split at a place that is drawn for each jump.

    Attributes:
        law: Law of the share of the first.
    """

    law: AbstractTimeLaw = Uniform()

    @property
    def is_dyadic(self) -> bool:
        """A random share is of no grid."""
        return False

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        """The tiles of n jumps."""
        split = self.law.draw(n, now.rng, dtype=dtype)
        return _chain([torch.zeros_like(split), split, torch.ones_like(split)])


@final
@dataclass(frozen=True, kw_only=True)
class ListedTiles(AbstractTiling):
    """Given tiles, which may overlap.

    Attributes:
        tiles: (start, length, weight) of each in shares of the jump, in order of their starts.

    Raises:
        ValueError: If a tile leaves the jump, is all of it or has no length, the starts fall, or
            the tiles do not cover the jump once.
    """

    tiles: tuple[tuple[float, float, float], ...] = ((0.0, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __post_init__(self) -> None:
        tiles = tuple((float(a), float(b), float(w)) for a, b, w in self.tiles)
        object.__setattr__(self, "tiles", tiles)
        for start, length, _ in tiles:
            is_inside = start >= 0.0 and start + length <= 1.0 + _ROUNDING
            if not (is_inside and 0.0 < length < 1.0):
                raise ValueError(
                    "a tile starts at 0 or later, has a length in (0, 1) and ends by 1, "
                    f"got start {start:g} and length {length:g}"
                )
        starts = [start for start, _, _ in tiles]
        if starts != sorted(starts):
            raise ValueError(f"tiles are listed in order of their starts, got {starts}")
        self._require_cover()

    def _require_cover(self) -> None:
        edges = sorted({0.0, 1.0, *(e for a, b, _ in self.tiles for e in (a, min(a + b, 1.0)))})
        for low, high in pairwise(edges):
            if high - low <= _ROUNDING:
                continue
            middle = 0.5 * (low + high)
            cover = math.fsum(w / b for a, b, w in self.tiles if a <= middle <= a + b)
            if not abs(cover - 1.0) <= _ROUNDING:
                raise ValueError(
                    "tiles cover a jump once: the sum of weight / length is 1 everywhere, "
                    f"got {cover:g} from {low:g} to {high:g}"
                )

    @property
    def is_dyadic(self) -> bool:
        """Whether each length is 2^-k and each start a multiple of its length."""
        return all(
            math.log2(length).is_integer() and (start / length).is_integer()
            for start, length, _ in self.tiles
        )

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        """The tiles of n jumps."""
        del now
        # A sum of lengths may miss the end of the jump by rounding.
        ends = [1.0 if abs(a + b - 1.0) <= _ROUNDING else a + b for a, b, _ in self.tiles]
        found = list[Tile]()
        for (start, _, weight), end in zip(self.tiles, ends, strict=True):
            before = [k for k in range(len(found)) if abs(ends[k] - start) <= _ROUNDING]
            numbers = (ends[before[0]] if before else start, end, weight)
            at, until, share = (torch.full((n,), number, dtype=dtype) for number in numbers)
            after = next(iter(before), None)
            tile = Tile(start=at, end=until, weight=share, after=after, is_first=start == 0.0)
            found.append(tile)
        return tuple(found)


def _chain(ends: Sequence[Tensor]) -> tuple[Tile, ...]:
    """Tiles that follow each other without a gap, each weighted by its length."""
    return tuple(
        Tile(start=a, end=b, weight=b - a, after=k - 1 if k else None, is_first=k == 0)
        for k, (a, b) in enumerate(pairwise(ends))
    )


def tiled_velocity(
    flow_map: FlowMap,
    x: Float[Tensor, " b *d"],
    s: Float[Tensor, " b"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
    *,
    tiles: Sequence[Tile],
    limit: float = math.inf,
) -> Float[Tensor, " b *d"]:
    """Average velocity of the jump from s to t, by the jumps of its tiles.

    Args:
        flow_map: Map that takes the jumps, one for each tile, and one more for each tile that
            starts neither where the jump does nor where an earlier tile ends.
        x: States at s.
        s: Start times.
        t: End times.
        condition: Condition of each row.
        tiles: The tiles of each row.
        limit: Largest absolute value of a state between the tiles.

    Returns:
        The sum of the weighted velocities.
    """

    def time(share: Tensor) -> Tensor:
        share = share.to(s)
        return (1.0 - share) * s + share * t  # exactly t at 1, and exact on dyadic grids

    def jump(u: Tensor, x: Tensor, length: Tensor) -> Tensor:
        return (x + rows_like(length, x) * u).clamp(-limit, limit)

    total, reached = torch.zeros_like(x), list[Tensor]()
    for tile in tiles:
        start, end = time(tile.start), time(tile.end)
        if tile.after is not None:
            at = reached[tile.after]
        elif tile.is_first:
            at = x
        else:
            at = jump(flow_map(x, s, start, condition), x, start - s)
        u = flow_map(at, start, end, condition)
        reached.append(jump(u, at, end - start))
        total = total + rows_like(tile.weight.to(s), u) * u
    return total
