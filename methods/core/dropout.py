"""Dropout as a function of the moment: masks come from the shards' streams alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .rng import Purpose, Rng, mix


@final
class DropoutMasks:
    """The masks of one batch: each layer's is drawn once and reused by every evaluation.

    A mask depends on the shard's stream and the layer's ordinal only, so neither the order of the
    evaluations nor the number of workers changes it, and a copy of a network has the same masks.

    Args:
        rng: Streams of the shards; one number of each is used.
        n: Rows of the batch.

    Raises:
        ValueError: If the rows are not a multiple of the shards.
    """

    def __init__(self, rng: Rng, n: int) -> None:
        self._rows_per_shard = rng.rows_per_shard(n)
        seeds = rng.integers(rng.shards, below=2**62)
        self._device = seeds.device
        self._seeds: list[int] = seeds.tolist()
        self._kept: dict[tuple[int, float, torch.Size], Tensor] = {}

    def kept(self, ordinal: int, p: float, shape: torch.Size) -> Tensor:
        """Which elements of a layer survive, for all rows of the batch; bool [n, *shape]."""
        key = (ordinal, p, shape)
        if key not in self._kept:
            size = (self._rows_per_shard, *shape)
            draws = [
                torch.rand(size, generator=g, device=self._device) for g in self._rngs(ordinal)
            ]
            self._kept[key] = torch.cat(draws) >= p
        return self._kept[key]

    def _rngs(self, ordinal: int) -> list[torch.Generator]:
        return [
            torch.Generator(self._device).manual_seed(mix(Purpose.DROPOUT, seed, ordinal))
            for seed in self._seeds
        ]


_masks: ContextVar[DropoutMasks | None] = ContextVar("dropout_masks", default=None)
_rows: ContextVar[Tensor | slice] = ContextVar("dropout_rows", default=slice(None))


@contextmanager
def dropout_masks(rng: Rng, n: int) -> Iterator[DropoutMasks]:
    """Give every network evaluated inside the dropout masks of one batch of n rows."""
    masks = DropoutMasks(rng, n)
    token = _masks.set(masks)
    try:
        with dropout_rows(slice(None)):
            yield masks
    finally:
        _masks.reset(token)


@contextmanager
def dropout_rows(rows: Int[Tensor, " m"] | slice) -> Iterator[None]:
    """Evaluate these rows of the batch inside, in this order; repeated rows share their mask."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


@final
class Dropout(nn.Module):
    """Dropout by the masks of the batch; the identity in evaluation mode.

    Args:
        p: Share of the elements that is dropped, in [0, 1).
        ordinal: Place of the layer in its network, which tells its mask from the others'.

    Raises:
        ValueError: If the share is outside [0, 1).
    """

    def __init__(self, p: float, *, ordinal: int) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {p}")
        self.p = p
        self.ordinal = ordinal

    def forward(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Drop elements and scale up the others.

        Args:
            x: Activations, the rows of the batch or those named by ``dropout_rows``.

        Raises:
            RuntimeError: If the batch has no masks, or masks for other rows.
        """
        if not self.training or self.p == 0.0:
            return x
        masks = _masks.get()
        if masks is None:
            raise RuntimeError("dropout in training needs `with dropout_masks(rng, n):` around it")
        kept = masks.kept(self.ordinal, self.p, x.shape[1:])[_rows.get()]
        if len(kept) != len(x):
            raise RuntimeError(
                f"dropout has masks for {len(kept)} rows, got {len(x)}; "
                "name them by `with dropout_rows(rows):`"
            )
        return x * (kept.to(x.device, x.dtype) / (1.0 - self.p))
