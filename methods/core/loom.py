"""LOOM: a coupling that keeps the noise of each datum, and improves it whenever data meet."""

import math
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .count import require_whole
from .coupling import AbstractCoupling, CouplingState, optimal_order
from .record import Batch, Moment
from .rng import Purpose, mix
from .schedule import Constant, Schedule, require_range

_BELOW: Final = 2**62
"""Seeds are drawn from [0, 2^62)."""


@final
@dataclass(frozen=True, kw_only=True)
class Loom(AbstractCoupling):
    """Each datum keeps some noise; in every batch the noise of a shard is swapped to the optimum.

    Where optimal transport within the batch forgets its assignment, this one goes on from it, so
    that the assignment of the whole set comes nearer to the optimal one with every batch. The
    distance between data and their noise never rises, and no noise is lost: each is passed from
    datum to datum. What is kept is a seed, from which the noise is made again.

    The noise is a finite set, so that a network can learn it by heart: judge it on fresh noise.

    Reference: Davtyan et al. 2025, arXiv:2603.15279v1 (LOOM-CFM, ICLR 2025), section 3.
    Differs from the paper: the distance is squared, which is the transport that W2 measures;
        theirs is not. Noise may be replaced by fresh one a little at a time, where theirs is drawn
        anew once in a run. It may be kept within labels.
    Fails by: a set whose images are mirrored at random has one noise for both; a step copies the
        seeds of the whole set, 8 bytes each.

    Attributes:
        caches: Noises of each datum, at least 1; a step picks one of them.
        refresh: Share of the noises in a batch that fresh ones replace before they are assigned,
            in [0, 1]; 1 is optimal transport within the batch.
        by_label: Whether noise stays within its label, which keeps its law given the label normal.
        seed: Seed of the first noises, at least 0.

    Raises:
        ValueError: If there is no cache, the share leaves [0, 1], the seed is negative or one of
            both is no whole number.
    """

    caches: int = 1
    refresh: Schedule = Constant(value=0.0)
    by_label: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("coupling.caches", self.caches)
        require_whole("coupling.seed", self.seed)
        if self.caches < 1 or self.seed < 0:
            raise ValueError(
                f"coupling.caches must be at least 1 and seed at least 0, "
                f"got {self.caches} and {self.seed}"
            )
        require_range("coupling.refresh", self.refresh, 0.0, 1.0)

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """A seed for each noise of each datum, all different."""
        del shape
        seeds = first_seeds(num_data * self.caches, seed=self.seed)
        return {"seed": seeds.reshape(num_data, self.caches)}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch with its kept noise in the order of the optimal assignment of its shard."""
        seeds, device, n = state["seed"], batch.x1.device, len(batch)
        cache = now.rng.integers(n, below=self.caches).to(device)
        fresh = now.rng.integers(n, below=_BELOW).to(device)
        is_fresh = (now.rng.uniform(n) < self.refresh(now)).to(device)
        mine = torch.where(is_fresh, fresh, seeds[batch.index, cache])
        x0 = seeded_noise(mine, tuple(batch.x1.shape[1:]), dtype=batch.x1.dtype)
        order = optimal_order(batch, x0, now, by_label=self.by_label)
        after = seeds.index_put((batch.index, cache), mine[order])
        return batch.with_noise(x0[order]), {"seed": after}


def first_seeds(n: int, *, seed: int) -> Int[Tensor, " n"]:
    """Seeds of n noises, all different, which depend on one seed at least 0."""
    return _scrambled(torch.arange(n) + mix(Purpose.KEPT_NOISE, seed)) & (_BELOW - 1)


def seeded_noise(
    seed: Int[Tensor, " b"], shape: tuple[int, ...], *, dtype: torch.dtype
) -> Float[Tensor, " b *d"]:
    """Standard normal noise that depends on the seed of its row alone, on any device.

    A counter is scrambled into two uniform numbers for each pair of coordinates, which Box and
    Muller's formula makes normal. There is no generator to be seeded row by row.

    Args:
        seed: Seed of each row.
        shape: Shape of a row.
        dtype: Type of the noise.

    Returns:
        The noise.
    """
    size = math.prod(shape)
    pairs = (size + 1) // 2
    counter = torch.arange(1, 2 * pairs + 1, device=seed.device)
    bits = _scrambled(_scrambled(seed)[:, None] + counter * _GOLDEN)
    uniform = _shifted(bits, 11).double() * 2.0**-53
    radius = (-2.0 * (1.0 - uniform[:, :pairs]).log()).sqrt()
    angle = 2.0 * math.pi * uniform[:, pairs:]
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return noise[:, :size].reshape(len(seed), *shape).to(dtype)


_GOLDEN: Final = 0x9E3779B97F4A7C15 - 2**64
_FIRST: Final = 0xBF58476D1CE4E5B9 - 2**64
_SECOND: Final = 0x94D049BB133111EB - 2**64
"""Steele, Lea and Flood 2014 (SplitMix64), as signed numbers: torch's integers wrap around."""


def _scrambled(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Bits that have nothing to do with each other for numbers that follow each other."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Int[Tensor, "*n"], by: int) -> Int[Tensor, "*n"]:
    """Bits moved to the right, with zeros from the left; torch alone would repeat the sign."""
    return (x >> by) & (2 ** (64 - by) - 1)
