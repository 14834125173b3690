"""Random numbers belong to (seed, step, shard), however the shards lie on workers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onestep.methods.core.rng import Rng, mix

DRAWS: list[Callable[[Rng, int], Tensor]] = [
    lambda rng, n: rng.uniform(n),
    lambda rng, n: rng.normal(n, 2, 3),
    lambda rng, n: rng.integers(n, below=1000),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_draws_of_a_batch_are_those_of_its_shards_in_order(
    draw: Callable[[Rng, int], Tensor],
) -> None:
    whole = draw(Rng.seeded(3, step=7, shards=(0, 1, 2, 3)), 16)
    for parts in (((0, 1), (2, 3)), ((0,), (1,), (2,), (3,)), ((0,), (1, 2, 3))):
        rows = [draw(Rng.seeded(3, step=7, shards=part), 4 * len(part)) for part in parts]
        assert torch.equal(torch.cat(rows), whole)


def test_streams_by_shard_go_on_from_the_whole() -> None:
    rng, again = Rng.seeded(1, shards=(0, 1)), Rng.seeded(1, shards=(0, 1))
    rng.uniform(4)
    again.uniform(4)
    split = torch.cat([part.uniform(3) for part in again.by_shard()])
    assert torch.equal(rng.uniform(6), split)


def test_seeds_steps_and_shards_all_matter() -> None:
    words = [(seed, step, shard) for seed in range(8) for step in range(8) for shard in range(8)]
    draws = {
        Rng.seeded(seed, step=step, shards=(shard,)).uniform(1, dtype=torch.float64).item()
        for seed, step, shard in words
    }
    assert len(draws) == len(words)


def test_mixed_seeds_are_distinct_and_depend_on_the_order() -> None:
    seeds = {mix(a, b, c) for a in range(30) for b in range(30) for c in range(30)}
    assert len(seeds) == 30**3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 6 rows cannot be cut into 4 equal shards"):
        Rng.seeded(0, shards=(0, 1, 2, 3)).uniform(6)


def test_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    Rng.seeded(0).normal(5)
    assert torch.equal(torch.get_rng_state(), before)
