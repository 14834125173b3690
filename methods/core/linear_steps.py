"""Samplers that step along a velocity of the linear path, with one evaluation a step."""

from abc import ABC
from dataclasses import dataclass
from typing import final

from .flow_map import Domain
from .grid import AbstractGrid, UniformGrid
from .sampler import AbstractSampler, finishing, require_linear, require_velocity


@dataclass(frozen=True, kw_only=True)
class AbstractLinearSteps(AbstractSampler, ABC):
    """Steps from the data that the velocity predicts, x + (1 - t) v: the linear path only.

    Attributes:
        grid: Where the steps begin and end.
    """

    grid: AbstractGrid = UniformGrid(steps=4)

    @property
    @final
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1

    @final
    def evaluations(self, domain: Domain) -> int:
        """Evaluations of the map for one sample: the steps, and the denoising if there is one."""
        return self.grid.steps + finishing(domain)

    @final
    def check(self, domain: Domain) -> None:
        """Refuse a map that is no velocity of the linear path.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If the map was not trained on the diagonal, or is of another path.
        """
        require_velocity(type(self).__name__, domain)
        require_linear(type(self).__name__, domain)
