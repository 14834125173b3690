"""Global optimal transport: one noise for each datum of the set, assigned once and for all."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from .count import require_whole
from .coupling import AbstractSolvedCoupling, CouplingState, optimal_assignment
from .loom import first_seeds, seeded_noise
from .record import Batch, Moment
from .rng import Purpose, Rng


@final
@dataclass(frozen=True, kw_only=True)
class GlobalOTCoupling(AbstractSolvedCoupling):
    """As many noises as data, paired at the least total squared distance before the first step.

    The noises are independent standard normal draws and each belongs to one datum through the whole
    run: the datum of every noise is decided, which is what keeps a neural flow from the mean. This
    is the global coupling of the paper. Its price: the network sees no noise but these and can
    learn them by heart, and with few data a fresh noise lies far from every one that was seen.
    Judge it on fresh noise.

    A set of more than `block` data is cut at random into the fewest equal parts of at most so many,
    each solved by itself, as near to the optimum as transport within a batch of that size.

    What is kept is a seed for each datum, from which its noise is made again: it goes into the
    checkpoint, so that a run that goes on solves nothing.

    Reference: Shou 2026, arXiv:2604.06413v1, section 4, where it is one of the consistent
        couplings.
    Differs from the paper: its solver, and the sizes up to which it is used, are not established.
    Cost: time grows a little faster than the square of a block's size, for each block and at each
        worker, and more for data of many dimensions; memory is 16 bytes times that square, 270 MB
        for 4096 points. Nothing in a step.
    Fails by: noise that is learnt by heart; a set whose images are mirrored at random has one noise
        for both.

    Attributes:
        block: Most data that are assigned together, at least 1.
        by_label: Whether noise stays within its label, which keeps its law given the label normal;
            each label is then cut into blocks by itself.
        seed: Seed of the noises and of the blocks, at least 0.

    Raises:
        ValueError: If a block has no room, the seed is negative or either is no whole number.
    """

    block: int = 4096
    by_label: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("coupling.block", self.block)
        require_whole("coupling.seed", self.seed)
        if self.block < 1 or self.seed < 0:
            raise ValueError(
                "coupling.block must be at least 1 and seed at least 0, "
                f"got {self.block} and {self.seed}"
            )

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """A seed for the noise of each datum, all different and not yet assigned."""
        del shape
        return {"seed": first_seeds(num_data, seed=self.seed)}

    def solve(self, whole: Batch, state: CouplingState) -> CouplingState:
        """The same seeds, each at the datum that its noise belongs to."""
        seeds, shape = state["seed"].cpu(), tuple(whole.x1.shape[1:])
        solved = seeds.clone()
        for rows in self._blocks(whole):
            x0 = seeded_noise(seeds[rows], shape, dtype=whole.x1.dtype)
            solved[rows] = seeds[rows][optimal_assignment(whole.x1[rows], x0)]
        return {"seed": solved}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch with the noise of each of its data."""
        del now
        self._check(batch)
        seed = state["seed"][batch.index]
        x0 = seeded_noise(seed, tuple(batch.x1.shape[1:]), dtype=batch.x1.dtype)
        return batch.with_noise(x0), state

    def _blocks(self, whole: Batch) -> list[Int[Tensor, " n"]]:
        label = self._check(whole)
        rng = Rng.seeded(self.seed, purpose=Purpose.BLOCKS)
        order = rng.uniform(len(whole), dtype=torch.float64).argsort()
        parts = [order]
        if label is not None:
            parts = [order[label.cpu()[order] == each] for each in label.unique().cpu()]
        return [rows for part in parts for rows in part.tensor_split(-(-len(part) // self.block))]

    def _check(self, batch: Batch) -> Tensor | None:
        """Labels that noise stays within, or None."""
        if not self.by_label:
            return None
        if batch.condition is None or batch.condition.label is None:
            raise ValueError("coupling by label needs labelled data, got a batch without labels")
        return batch.condition.label
