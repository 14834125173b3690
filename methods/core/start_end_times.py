"""A law of (s, t) whose start and end have laws of their own."""

from dataclasses import dataclass
from typing import final

import torch

from .record import Moment
from .schedule import Constant, Schedule
from .time_law import AbstractTimeLaw, LogitNormal
from .times import AbstractMixedTimes, Interval


@final
@dataclass(frozen=True, kw_only=True)
class StartEndTimes(AbstractMixedTimes):
    """A start and an end of laws of their own; an end before its start is moved there.

    Reference: the second sampler of MeanFlow's code for CIFAR-10 (Geng et al. 2025,
        arXiv:2505.13447): start LogitNormal(mean=0.6, std=1.6), end LogitNormal(mean=4, std=1.6),
        diagonal 0.25.
    Convention: theirs runs data -> noise, so that means change sign; their tau is the start.

    Attributes:
        start: Law of the start, on the diagonal too.
        end: Law of the end before it is moved.
        diagonal: Share of rows with s = t, in [0, 1], as whole rows of each shard; strictly between
            0 and 1 there is at least one row of each kind.

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    start: AbstractTimeLaw = LogitNormal(mean=0.6, std=1.6)
    end: AbstractTimeLaw = LogitNormal(mean=4.0, std=1.6)
    diagonal: Schedule = Constant(value=0.25)

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        """Times of n rows, independent of each other."""
        s = self.start.draw(n, now.rng, dtype=dtype)
        end = self.end.draw(n, now.rng, dtype=dtype)
        off = self.off_per_shard(n, now)
        is_off = self.is_off(s, off, now)
        return Interval(
            s=s,
            t=torch.where(is_off, torch.maximum(s, end), s),
            off_per_shard=off,
            shards=now.rng.shards,
        )
