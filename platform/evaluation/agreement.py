"""Shares of samples that are what was asked for: the class, the squares of the checkerboard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from ..data.checkerboard import Checkerboard, share_in_forbidden
from .metric import AbstractMetric, Space
from .population import Population, Reference

CHECKERBOARD: Final = Checkerboard().name
"""Name of the set that has forbidden squares."""


@final
@dataclass(frozen=True, kw_only=True)
class ClassAgreement(AbstractMetric):
    """Share of samples in which the feature classifier sees the class that was asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/class_agreement",)

    @property
    def space(self) -> Space:
        """Features of the classifier."""
        return Space.FEATURES

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/class_agreement``, in [0, 1].

        Args:
            samples: Points to judge.
            reference: Not used.

        Raises:
            ValueError: If the samples have no labels or no classifier saw them.
        """
        del reference
        if samples.label is None or samples.predicted is None:
            raise ValueError("class agreement needs labelled samples and a classifier, got none")
        return {"eval/class_agreement": (samples.label == samples.predicted).double().mean().item()}


@final
@dataclass(frozen=True, kw_only=True)
class ForbiddenSquares(AbstractMetric):
    """Share of samples in the light squares of the checkerboard or off the board."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/forbidden_share",)

    @property
    def space(self) -> Space:
        """Coordinates."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/forbidden_share``, in [0, 1]."""
        del reference
        return {"eval/forbidden_share": share_in_forbidden(samples.x)}
