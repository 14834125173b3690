import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onestep.platform.data.order import indices

cases = st.integers(1, 50).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(0, 2**40), st.integers(0, 5))
)


@given(cases)
def test_an_epoch_visits_each_example_at_most_once(case: tuple[int, int, int, int]) -> None:
    n, batch_size, seed, epoch = case
    steps = n // batch_size
    seen = torch.cat(
        [indices(n, batch_size, epoch * steps + step, seed) for step in range(steps)]
    ).tolist()
    assert len(seen) == steps * batch_size == len(set(seen))
    assert set(seen) <= set(range(n))


@given(cases, st.integers(0, 20))
def test_a_step_read_alone_is_the_step_of_the_whole_run(
    case: tuple[int, int, int, int], step: int
) -> None:
    n, batch_size, seed, _ = case
    straight = [indices(n, batch_size, k, seed).tolist() for k in range(21)]
    assert indices(n, batch_size, step, seed).tolist() == straight[step]


@given(st.integers(1, 24), st.integers(0, 2**40))
def test_a_smaller_batch_walks_the_same_permutation(batch_size: int, seed: int) -> None:
    whole = indices(24, 24, 0, seed).tolist()
    assert indices(24, batch_size, 0, seed).tolist() == whole[:batch_size]


def test_epochs_and_seeds_have_their_own_permutations() -> None:
    first = indices(100, 100, 0, 7)
    assert not torch.equal(first, indices(100, 100, 1, 7))
    assert not torch.equal(first, indices(100, 100, 0, 8))


def test_changing_a_batch_changes_no_later_one() -> None:
    batch = indices(10, 5, 0, 0)
    before = batch.tolist()
    batch.zero_()
    assert indices(10, 5, 0, 0).tolist() == before


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    indices(1000, 10, 3, 123456789)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("batch_size", [0, 11, -1])
def test_a_batch_that_does_not_fit_the_set_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"batch_size must be in \[1, 10\].*got {batch_size}"):
        indices(10, batch_size, 0, 0)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step must not be negative, got -1"):
        indices(10, 5, -1, 0)
