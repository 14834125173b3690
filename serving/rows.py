"""Rows to sample where each has a label and a noise of its own."""

from dataclasses import dataclass, replace
from typing import Self, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.noise import draw_noise


@final
@dataclass(frozen=True, kw_only=True)
class Rows:
    """An accepted request for images that need not have anything in common.

    Attributes:
        labels: Class of each image, or None for an unconditional model.
        origins: Seed of each image and its number within it, or the noise itself in the shape
            [draws, n, c, h, w].
        steps: Network evaluations for each image.
        guidance: Scale of a model that takes one; None for the model's own.
    """

    labels: tuple[int, ...] | None
    origins: tuple[tuple[int, int], ...] | Tensor
    steps: int
    guidance: float | None = None

    @property
    def n(self) -> int:
        """How many images."""
        return self.origins.shape[1] if isinstance(self.origins, Tensor) else len(self.origins)

    def first(self, n: int) -> Self:
        """The first of the images; all of them where there are no more.

        Args:
            n: How many at most.

        Returns:
            The request for them alone.
        """
        if self.n <= n:
            return self
        assert not isinstance(self.origins, Tensor), "noise that is given comes in one part"
        labels = None if self.labels is None else self.labels[:n]
        return replace(self, labels=labels, origins=self.origins[:n])

    def noise(self, shape: tuple[int, ...], *, draws: int) -> Float[Tensor, "draws n *d"]:
        """Where each image begins.

        Args:
            shape: Shape of one.
            draws: How often the sampler draws.

        Returns:
            The noise.
        """
        if isinstance(self.origins, Tensor):
            return self.origins
        rows = [draw_noise(1, shape, seed=seed, draws=draws, start=k) for seed, k in self.origins]
        return torch.cat(rows, dim=1)
