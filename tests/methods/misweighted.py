"""Tilings whose velocities do not add up: negative controls of methods that cut jumps."""

from dataclasses import dataclass
from typing import final

import torch

from onestep.methods.core.record import Moment
from onestep.methods.core.tiling import AbstractTiling, Tile


@final
@dataclass(frozen=True, kw_only=True)
class MisweightedTiles(AbstractTiling):
    """The two tiles of a tiling, the first of which always counts a third and the second the rest.

    Attributes:
        tiling: The tiling.
    """

    tiling: AbstractTiling

    @property
    def is_dyadic(self) -> bool:
        return self.tiling.is_dyadic

    def draw(self, n: int, now: Moment, *, dtype: torch.dtype) -> tuple[Tile, ...]:
        first, second = self.tiling.draw(n, now, dtype=dtype)
        third = torch.full_like(first.weight, 1.0 / 3.0)
        return first._replace(weight=third), second._replace(weight=1.0 - third)
