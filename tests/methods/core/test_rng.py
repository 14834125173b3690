"""Random numbers belong to (seed, step, shard), however the shards lie on workers."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from onestep.methods.core.noise import draw_noise
from onestep.methods.core.rng import Purpose, Rng, mix

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
    numbers = range(30)
    seeds = {mix(Purpose.STEP, a, b, c) for a in numbers for b in numbers for c in numbers}
    assert len(seeds) == 30**3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_two_purposes_share_a_seed_whatever_they_mix() -> None:
    """Nor do few numbers and many: a zero in front is a number like another."""
    seeds = [
        mix(purpose, *words)
        for purpose in Purpose
        if purpose is not Purpose.POINTS
        for count in (1, 2, 3)
        for words in product(range(6), repeat=count)
    ]
    assert len(set(seeds)) == len(seeds)


def test_the_noise_of_a_sample_is_drawn_in_no_step_of_training() -> None:
    """Once that of sample k of seed s was what shard k drew in step s - 1 of seed 0."""
    drawn = {
        Rng.seeded(seed, step=step, shards=(shard,)).normal(1).item()
        for seed, step, shard in product(range(4), range(8), range(8))
    }
    noise = torch.cat([draw_noise(8, (), seed=seed) for seed in range(8)])
    assert drawn.isdisjoint(noise.flatten().tolist())


def test_a_stream_depends_on_what_it_is_for() -> None:
    drawn = {Rng.seeded(0, purpose=purpose).uniform(1).item() for purpose in Purpose}
    assert len(drawn) == len(Purpose)


def test_the_seeds_of_points_in_the_plane_are_what_they_always_were() -> None:
    """Others would be other sets, under the same names."""
    assert mix(Purpose.POINTS, 0, 1) == 2177342799910908382
    assert mix(Purpose.POINTS, 3, 1) == 2749098331141531239


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 6 rows cannot be cut into 4 equal shards"):
        Rng.seeded(0, shards=(0, 1, 2, 3)).uniform(6)


def test_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    Rng.seeded(0).normal(5)
    assert torch.equal(torch.get_rng_state(), before)
