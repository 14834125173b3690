"""Noise to sample from: each sample has a stream of its own, so that company never changes it."""

import torch
from jaxtyping import Float
from torch import Tensor

from .rng import Purpose, mix


def draw_noise(
    n: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    draws: int = 1,
    start: int = 0,
    purpose: Purpose = Purpose.SAMPLES,
) -> Float[Tensor, "draws n *d"]:
    """Standard normal noise for samples start, ..., start + n - 1 of a seed.

    Args:
        n: How many samples.
        shape: Shape of one sample.
        seed: Seed of the whole set, at least 0.
        draws: Independent draws for each sample; the first is the same for any number.
        start: Number of the first sample.
        purpose: What the samples are for; what a network is judged on was not in its training.

    Returns:
        The noise; a sample's part depends on the seed and its number alone.
    """
    rows = [
        torch.randn(
            draws, *shape, generator=torch.Generator().manual_seed(mix(purpose, seed, start + k))
        )
        for k in range(n)
    ]
    return torch.stack(rows, dim=1)
