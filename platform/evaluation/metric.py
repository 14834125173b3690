"""The protocol of every metric that compares samples with data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum

from .population import Population, Reference


class Space(StrEnum):
    """Where a metric looks at points."""

    DATA = "data"
    """Coordinates or pixels."""
    FEATURES = "features"
    """Features of the classifier whose digest stands in the provenance."""


class AbstractMetric(ABC):
    """One or several numbers that say how far samples are from data.

    A metric is a frozen value and a pure function: the order of the points plays no role, and
    what it draws at random follows from its fields.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What its numbers are called, ``family/name``."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """Where the metric looks at points."""

    @abstractmethod
    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """The numbers by name.

        Args:
            samples: Points to judge.
            reference: What they are compared with.
        """


class AbstractPooledMetric(AbstractMetric):
    """A metric whose bias falls with the number of samples, so that draws are taken together."""

    @property
    @abstractmethod
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """What each of its numbers cannot leave, and so no interval of it: ends by name."""
