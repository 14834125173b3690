"""Which examples a step of training sees: a pure function of the seed and the step."""

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from ...methods.core.rng import Purpose, mix


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    rng = torch.Generator().manual_seed(mix(Purpose.ORDER, seed, epoch))
    return torch.randperm(n, generator=rng)


def indices(n: int, batch_size: int, step: int, seed: int) -> Int[Tensor, " b"]:
    """Numbers of the examples in the batch of one step.

    An epoch is a permutation of all examples, cut into whole batches; the tail is dropped. Each
    epoch has its own permutation. A run that resumes at any step sees what it would have seen.

    Args:
        n: Number of examples.
        batch_size: Rows of the whole batch, over all workers, in [1, n].
        step: Steps taken before this one, from 0.
        seed: Seed of the permutations.

    Raises:
        ValueError: If the batch does not fit the set or the step is negative.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"batch_size must be in [1, {n}], the number of training examples, got {batch_size}"
        )
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    epoch, place = divmod(step, n // batch_size)
    # A copy: the permutation is shared by all steps of the epoch.
    return _permutation(n, seed, epoch)[place * batch_size : (place + 1) * batch_size].clone()
