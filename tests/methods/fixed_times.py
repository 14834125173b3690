"""A law of times without chance: every row has the same start and end, off the diagonal."""

from dataclasses import dataclass
from typing import final

import torch

from onestep.methods.core.flow_map import Domain
from onestep.methods.core.record import Moment
from onestep.methods.core.times import AbstractTimes, Interval


@final
@dataclass(frozen=True, kw_only=True)
class FixedTimes(AbstractTimes):
    """The same (s, t) for all rows, as one of those of a law of the whole triangle.

    Attributes:
        s: Start time.
        t: End time.
    """

    s: float
    t: float

    @property
    def covers(self) -> Domain:
        return Domain()

    @property
    def has_diagonal(self) -> bool:
        return True

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype = torch.float32) -> Interval:
        return Interval(
            s=torch.full((n,), self.s, dtype=dtype),
            t=torch.full((n,), self.t, dtype=dtype),
            off_per_shard=now.rng.rows_per_shard(n),
            shards=now.rng.shards,
        )
