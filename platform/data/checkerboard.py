"""The checkerboard: a law with sharp edges, on which a sample is plainly right or wrong."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .planar import AbstractPlanar, Components, Points

SIDE: Final = 7 / 8
"""Side of a square; the board is [-2 SIDE, 2 SIDE)^2, whose coordinates have a std of 1.01."""


@final
@dataclass(frozen=True, kw_only=True)
class Checkerboard(AbstractPlanar):
    """Uniform on the 8 dark squares of a 4 x 4 board with squares of side 7/8."""

    @property
    def name(self) -> str:
        """Name of the set."""
        return "checkerboard"

    @property
    def parts(self) -> int:
        """Eight dark squares."""
        return 8

    @property
    def mixture(self) -> None:
        """None: the law is no mixture of Gaussians."""
        return None

    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these dark squares."""
        row, pair = np.divmod(part, 2)
        corner = np.stack([2 * pair + row % 2, row], axis=1) - 2
        points: Points = SIDE * (corner + rng.random((len(part), 2)))
        return points


def is_forbidden(x: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Whether each point lies in a light square or outside the board.

    Args:
        x: Points in the scale of the set.
    """
    cell = torch.floor(x / SIDE)
    outside = ((cell < -2) | (cell > 1)).any(dim=1)
    return outside | (cell.sum(dim=1) % 2 != 0)


def share_in_forbidden(x: Float[Tensor, "n 2"]) -> float:
    """Share of the points where the law has no mass, in [0, 1].

    Args:
        x: Points in the scale of the set.
    """
    return is_forbidden(x).float().mean().item()
