"""Laws of (s, t) in which the length of the jump is drawn, or scheduled, by itself."""

from dataclasses import dataclass, replace
from typing import final

import torch

from .flow_map import Domain, DomainKind
from .record import Moment
from .schedule import Constant, Schedule, greatest, least, require_range
from .time_law import AbstractTimeLaw, LogitNormal
from .times import AbstractMixedTimes, AbstractTimes, Interval, SortedTimes


@final
@dataclass(frozen=True, kw_only=True)
class GapTimes(AbstractMixedTimes):
    """The length of a jump first, then where it ends, so that it begins at 0 or later.

    Reference: Zhou et al. 2025, arXiv:2511.19797v1, and the sampler of their code: a logit-normal
        length, and a logit-normal time cut off where the jump would not fit.
    Convention: their time runs from data to noise, so that a mean of -0.4 of theirs is 0.4 here.

    Attributes:
        gap: Law of the length t - s.
        end: Law of the end time, cut off below the length; as it is on the diagonal.
        diagonal: Share of rows with s = t, in [0, 1], as whole rows of each shard; strictly between
            0 and 1 there is at least one row of each kind.

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    gap: AbstractTimeLaw = LogitNormal(mean=-0.8, std=1.0)
    end: LogitNormal = LogitNormal(mean=0.4, std=1.0)
    diagonal: Schedule = Constant(value=0.0)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        off = self.off_per_shard(n, now)
        drawn = self.gap.draw(n, now.rng, dtype=torch.float64)
        gap = torch.where(self.is_off(drawn, off, now), drawn, 0.0)
        # By the upper tail, which keeps its digits where the length is nearly 1.
        lowest = (torch.logit(gap) - self.end.mean) / self.end.std
        tail = torch.special.ndtr(-lowest) * (1.0 - now.rng.uniform(n, dtype=torch.float64))
        end = torch.sigmoid(self.end.mean - self.end.std * torch.special.ndtri(tail))
        t = torch.maximum(end, gap)
        return Interval(
            s=(t - gap).to(dtype), t=t.to(dtype), off_per_shard=off, shards=now.rng.shards
        )


@final
@dataclass(frozen=True, kw_only=True)
class ShortenedTimes(AbstractTimes):
    """Another law whose jumps end early: a curriculum from short jumps to whole ones.

    Reference: the largest gap that is annealed in Boffi et al. 2025, arXiv:2505.18825v2.
    Differs from the paper: every length is scaled, where theirs are cut off.

    Attributes:
        times: The law.
        reach: Share of each length that is kept, in [0, 1].

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    times: AbstractTimes = SortedTimes()
    reach: Schedule = Constant(value=1.0)

    def __post_init__(self) -> None:
        require_range("times.reach", self.reach, 0.0, 1.0)

    @property
    def covers(self) -> Domain | None:
        """What the law does, as soon as jumps are whole; the diagonal has nothing to shorten."""
        covers = self.times.covers
        if covers is None or covers.kind is DomainKind.DIAGONAL or greatest(self.reach) == 1.0:
            return covers
        return None

    @property
    def has_diagonal(self) -> bool:
        """Whether the law has one."""
        return self.times.has_diagonal

    @property
    def meets_diagonal(self) -> bool:
        """Whether the law does, or its jumps have no length for a while."""
        return self.times.meets_diagonal or least(self.reach) == 0.0

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        whole = self.times.draw(n, now, dtype=dtype)
        reach = self.reach(now)
        # Not a mean of s and t, which rounding would move off the diagonal.
        t = torch.minimum(whole.s + reach * (whole.t - whole.s), whole.t)
        return replace(whole, t=t)
