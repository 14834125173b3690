"""A grid of a diffusion's own: equal intervals of its clock."""

from dataclasses import dataclass
from typing import final

import torch

from .diffusion_clock import AbstractDiffusionClock, DiscreteClock
from .grid import AbstractGrid, UniformGrid


@final
@dataclass(frozen=True, kw_only=True)
class ClockGrid(AbstractGrid):
    """Equal intervals of a diffusion's clock, as its own samplers place their steps.

    A range that reaches the data ends at reading 0. With the discrete clock this is what the
    library diffusers calls trailing.

    Reference: DDIM, Song et al. 2020, arXiv:2010.02502v4, appendix D.2, where it is called linear.

    Attributes:
        clock: The diffusion's clock.
        steps: How many, at least 1.

    Raises:
        ValueError: If there is no step.
    """

    clock: AbstractDiffusionClock = DiscreteClock()
    steps: int = 50

    def __post_init__(self) -> None:
        UniformGrid(steps=self.steps)  # refuses less than 1

    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The steps + 1 times between t_lo and t_hi."""
        ends = torch.tensor([t_lo, t_hi], dtype=torch.float64)
        first, last = self.clock.tau(ends).tolist()
        if t_hi == 1.0:
            last = 0.0
        share = torch.arange(1, self.steps, dtype=torch.float64) / self.steps
        inner = self.clock.time(first + (last - first) * share)
        return (t_lo, *inner.tolist(), t_hi)
