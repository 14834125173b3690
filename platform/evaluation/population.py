"""Sets of points that metrics compare: samples of a model, held-out data, training data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.source import Mixture
from .nearest import nearest_distance


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """Points with what metrics need to know about them.

    Attributes:
        x: Coordinates or pixels, flattened.
        features: The points in feature space; equal to x where no classifier exists.
        label: Class that was asked for, or that the data has; None without classes.
        predicted: Class that the feature classifier gives, or None.
        rows: Numbers of the training examples that these points are, or None for all others. A
            point that *is* training data is never its own nearest training example.
    """

    x: Float[Tensor, "n d"]
    features: Float[Tensor, "n f"]
    label: Int[Tensor, " n"] | None = None
    predicted: Int[Tensor, " n"] | None = None
    rows: Int[Tensor, " n"] | None = None

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> Self:
        """Points whose features are their coordinates.

        Args:
            x: Coordinates.
        """
        return cls(x=x, features=x)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Several sets as one.

        Args:
            parts: At least one set; all of them have labels, or none.
        """

        def join(columns: Sequence[Tensor | None]) -> Tensor | None:
            present = [column for column in columns if column is not None]
            return torch.cat(present) if len(present) == len(columns) else None

        return cls(
            x=torch.cat([part.x for part in parts]),
            features=torch.cat([part.features for part in parts]),
            label=join([part.label for part in parts]),
            predicted=join([part.predicted for part in parts]),
            rows=join([part.rows for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Int[Tensor, " m"] | slice) -> Self:
        return type(self)(
            x=self.x[rows],
            features=self.features[rows],
            label=None if self.label is None else self.label[rows],
            predicted=None if self.predicted is None else self.predicted[rows],
            rows=None if self.rows is None else self.rows[rows],
        )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What samples are compared with.

    Attributes:
        held_out: Data that no model saw, as many points as a draw of samples has.
        train: Training data, for memorisation.
        mixture: The law of the data where it is a mixture of Gaussians.
    """

    held_out: Population
    train: Population
    mixture: Mixture | None = None

    @cached_property
    def fresh_distance(self) -> Float[Tensor, " m"]:
        """Distance of each held-out example to the nearest training example."""
        return nearest_distance(self.held_out.x, self.train.x)
