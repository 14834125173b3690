"""Laws of the pair (s, t): which jumps training visits, and how many rows sit on the diagonal."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .count import require_whole
from .flow_map import Domain, DomainKind
from .record import Moment
from .rng import Rng
from .schedule import Constant, Schedule, greatest, least, require_range
from .share import whole_rows
from .time_law import AbstractTimeLaw, LogitNormal, Uniform


@final
@dataclass(frozen=True, kw_only=True)
class Interval:
    """Start and end times of a batch, s <= t.

    Rows off the diagonal come first in each shard and their count is fixed, so that the rows that
    need a derivative are known without looking at the times.

    Attributes:
        s: Start times in [0, 1].
        t: End times in [s, 1].
        off_per_shard: How many rows of each shard may have s < t.
        shards: How many shards the rows are made of.
    """

    s: Float[Tensor, " b"]
    t: Float[Tensor, " b"]
    off_per_shard: int
    shards: int

    def to(self, device: torch.device) -> "Interval":
        """The same times on another device."""
        return replace(self, s=self.s.to(device), t=self.t.to(device))

    def _rows(self, first: int, last: int) -> Int[Tensor, " n"]:
        rows = torch.arange(len(self.s), device=self.s.device).reshape(self.shards, -1)
        return rows[:, first:last].reshape(-1)

    @property
    def off_rows(self) -> Int[Tensor, " n"]:
        """Rows that may lie off the diagonal."""
        return self._rows(0, self.off_per_shard)

    @property
    def diagonal_rows(self) -> Int[Tensor, " n"]:
        """Rows with s = t."""
        return self._rows(self.off_per_shard, len(self.s) // self.shards)


class AbstractTimes(ABC):
    """The law of (s, t)."""

    @abstractmethod
    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""

    @property
    @abstractmethod
    def covers(self) -> Domain | None:
        """On which (s, t) a map is trained by jumps of this law, of any path.

        None for a law whose pairs are no jumps that a domain could name.
        """

    @property
    def has_diagonal(self) -> bool:
        """Whether rows ever sit on the diagonal; they do not unless a law says so."""
        return False

    @property
    def meets_diagonal(self) -> bool:
        """Whether a row ever has s = t: one on the diagonal, or a jump without length."""
        return self.has_diagonal


def require_diagonal(reader: str, times: AbstractTimes) -> None:
    """Refuse a law without rows on the diagonal where a method reads the network's velocity.

    Args:
        reader: The setting, or the method, that reads it.
        times: Law of (s, t).

    Raises:
        ValueError: If the velocity is never trained.
    """
    if not times.has_diagonal:
        raise ValueError(
            f"{reader} reads the network's own velocity, which rows with s = t teach: method.times "
            f"must have some, got {type(times).__name__} without"
        )


@final
@dataclass(frozen=True, kw_only=True)
class DiagonalTimes(AbstractTimes):
    """s = t, for methods that learn a velocity.

    Attributes:
        law: Law of the time.
    """

    law: AbstractTimeLaw = Uniform()

    @property
    def covers(self) -> Domain:
        """The diagonal."""
        return Domain(kind=DomainKind.DIAGONAL)

    @property
    def has_diagonal(self) -> bool:
        """All rows do."""
        return True

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        t = self.law.draw(n, now.rng, dtype=dtype)
        return Interval(s=t, t=t, off_per_shard=0, shards=now.rng.shards)


@dataclass(frozen=True, kw_only=True)
class AbstractMixedTimes(AbstractTimes):
    """Jumps mixed with rows on the diagonal, of which there is a fixed count.

    Attributes:
        diagonal: Share of rows with s = t, in [0, 1], as whole rows of each shard; strictly between
            0 and 1 there is at least one row of each kind.

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    diagonal: Schedule = Constant(value=0.75)

    def __post_init__(self) -> None:
        require_range("times.diagonal", self.diagonal, 0.0, 1.0)

    @property
    @final
    def covers(self) -> Domain | None:
        """What its jumps do, or the diagonal alone where there are never any."""
        if least(self.diagonal) == 1.0:
            return Domain(kind=DomainKind.DIAGONAL)
        return self.jumps_cover

    @property
    def jumps_cover(self) -> Domain | None:
        """What the rows off the diagonal cover: the whole triangle unless a law says otherwise."""
        return Domain()

    @property
    @final
    def has_diagonal(self) -> bool:
        """Whether the share of the diagonal is ever above 0."""
        return greatest(self.diagonal) > 0.0

    @final
    def off_per_shard(self, n: int, now: Moment) -> int:
        """Rows of each shard that lie off the diagonal, in a batch of n."""
        rows = now.rng.rows_per_shard(n)
        return rows - whole_rows("method.times.diagonal", self.diagonal(now), rows)

    @final
    def is_off(self, times: Float[Tensor, " n"], off: int, now: Moment) -> Bool[Tensor, " n"]:
        """Which rows of a batch are the first so many of their shards."""
        rows = torch.arange(now.rng.rows_per_shard(len(times)), device=times.device)
        return (rows < off).repeat(now.rng.shards)


@final
@dataclass(frozen=True, kw_only=True)
class SortedTimes(AbstractMixedTimes):
    """Two independent times in order; a fixed count of rows sits on the diagonal instead.

    A diagonal row takes the first of its two times as drawn. Sorting before would give the
    diagonal the law of a minimum.

    Attributes:
        law: Law of both times before sorting.
        diagonal: Share of rows with s = t, in [0, 1], as whole rows of each shard; strictly between
            0 and 1 there is at least one row of each kind.

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    law: AbstractTimeLaw = LogitNormal(mean=0.4, std=1.0)
    diagonal: Schedule = Constant(value=0.75)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        first = self.law.draw(n, now.rng, dtype=dtype)
        second = self.law.draw(n, now.rng, dtype=dtype)
        off = self.off_per_shard(n, now)
        is_off = self.is_off(first, off, now)
        return Interval(
            s=torch.where(is_off, torch.minimum(first, second), first),
            t=torch.where(is_off, torch.maximum(first, second), first),
            off_per_shard=off,
            shards=now.rng.shards,
        )


@final
@dataclass(frozen=True, kw_only=True)
class ToDataTimes(AbstractTimes):
    """t = 1, for consistency functions.

    Attributes:
        law: Law of the start time.
    """

    law: AbstractTimeLaw = LogitNormal(mean=1.1, std=2.0)

    @property
    def covers(self) -> Domain:
        """All jumps to the data."""
        return Domain(kind=DomainKind.TO_DATA)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        s = self.law.draw(n, now.rng, dtype=dtype)
        return Interval(
            s=s,
            t=torch.ones_like(s),
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )


@final
@dataclass(frozen=True, kw_only=True)
class FromNoiseTimes(AbstractTimes):
    """s = 0, for one-step generators and neural flows.

    Attributes:
        law: Law of the end time; None for t = 1 always.
    """

    law: AbstractTimeLaw | None = None

    @property
    def covers(self) -> Domain:
        """All jumps from noise, or the one jump to the data."""
        if self.law is None:
            return Domain(kind=DomainKind.TILING, steps=1)
        return Domain(kind=DomainKind.FROM_NOISE)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        if self.law is None:
            t = torch.ones(n, dtype=dtype)
        else:
            t = self.law.draw(n, now.rng, dtype=dtype)
        return Interval(
            s=torch.zeros_like(t),
            t=t,
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )


@final
@dataclass(frozen=True, kw_only=True)
class TilingTimes(AbstractTimes):
    """One of the equal jumps that tile [0, 1], each as likely as the others.

    Attributes:
        steps: How many jumps there are, at least 1.

    Raises:
        ValueError: If there is no jump.
    """

    steps: int = 1

    def __post_init__(self) -> None:
        require_whole("times.steps", self.steps, least=1)

    @property
    def covers(self) -> Domain:
        """These jumps and nothing else."""
        return Domain(kind=DomainKind.TILING, steps=self.steps)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        tile = now.rng.integers(n, below=self.steps).to(dtype)
        return Interval(
            s=tile / self.steps,
            t=(tile + 1.0) / self.steps,
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )


@final
@dataclass(frozen=True, kw_only=True)
class DyadicTimes(AbstractMixedTimes):
    """Jumps of length 2^-k from a multiple of their length; the other rows on the diagonal.

    In each shard the off-diagonal rows are shared equally among the lengths 1 / steps, ..., 1/2,
    1; what does not divide goes to the length 1. Fewer rows than lengths take lengths that lie
    evenly apart from a random one on, so that over the steps each length is as frequent as the
    others: a jump is taught by shorter ones, which must be taught too.

    Reference: Frans et al. 2024, arXiv:2410.12557v1, section 3 and Alg. 1, whose finest step of
        1/128 anchors the ladder; the jumps that are taught are the seven from 1/64 to 1.
    Differs from the paper: the anchor is the diagonal, with a law of its own. Theirs has no rule
        for fewer rows than lengths.

    Attributes:
        steps: How many of the finest jumps cross [0, 1], a power of two.
        diagonal: Share of rows with s = t, in [0, 1], as whole rows of each shard; strictly between
            0 and 1 there is at least one row of each kind.
        law: Law of the diagonal times.

    Raises:
        ValueError: If steps is no power of two or the share leaves [0, 1].
    """

    steps: int = 64
    diagonal: Schedule = Constant(value=0.75)
    law: AbstractTimeLaw = Uniform()

    def __post_init__(self) -> None:
        require_whole("times.steps", self.steps)
        if self.steps < 1 or self.steps & (self.steps - 1):
            raise ValueError(f"times.steps must be a power of two, got {self.steps}")
        super().__post_init__()

    @property
    def jumps_cover(self) -> Domain | None:
        """The grid, to which the diagonal belongs: without it no domain."""
        return Domain(kind=DomainKind.GRID, steps=self.steps) if self.has_diagonal else None

    def jumps(self, off: int, rng: Rng) -> Int[Tensor, "shards off"]:
        """How many jumps of its length cross [0, 1], for each off-diagonal row of each shard.

        Args:
            off: Off-diagonal rows of a shard.
            rng: Random numbers; they are drawn where there are fewer rows than lengths.
        """
        levels = self.steps.bit_length()
        if 0 < off < levels:
            # The numbers below off * levels, cut into as many equal parts as there are levels:
            # the rows of a shard lie `levels` apart, and each number is as likely as the others.
            first = rng.integers(rng.shards, below=levels)
            return 2 ** ((first[:, None] + levels * torch.arange(off)) // off)
        each = off // levels
        counts = [2**k for k in range(levels - 1, -1, -1) for _ in range(each)]
        return torch.tensor([counts + [1] * (off - each * levels)] * rng.shards, dtype=torch.long)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        rows, off = now.rng.rows_per_shard(n), self.off_per_shard(n, now)
        counts = self.jumps(off, now.rng)
        u = now.rng.uniform(n, dtype=dtype).reshape(-1, rows)[:, :off]
        t = self.law.draw(n, now.rng, dtype=dtype).reshape(-1, rows)
        s = t.clone()
        s[:, :off] = torch.floor(u * counts) / counts
        t[:, :off] = s[:, :off] + 1.0 / counts
        return Interval(s=s.reshape(-1), t=t.reshape(-1), off_per_shard=off, shards=now.rng.shards)
