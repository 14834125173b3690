import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from onestep.platform.data.split import is_held_out

EXAMPLES = [number.to_bytes(4, "big") for number in range(20_000)]


def test_the_share_held_out_is_the_fraction_within_its_standard_error() -> None:
    share = is_held_out(EXAMPLES, 0.25).double().mean().item()
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(EXAMPLES))


@given(st.permutations(EXAMPLES[:40]))
def test_the_order_of_the_examples_plays_no_role(examples: list[bytes]) -> None:
    held = dict(zip(EXAMPLES[:40], is_held_out(EXAMPLES[:40], 0.5).tolist(), strict=True))
    assert is_held_out(examples, 0.5).tolist() == [held[example] for example in examples]


@given(st.binary(max_size=64), st.floats(0.01, 0.99))
def test_duplicates_land_on_the_same_side(example: bytes, fraction: float) -> None:
    assert is_held_out([example, b"other", example], fraction)[[0, 2]].unique().numel() == 1


@given(st.floats(0.01, 0.5), st.floats(0.0, 0.49))
def test_a_larger_fraction_holds_out_more_and_moves_none_back(lo: float, more: float) -> None:
    small, large = (is_held_out(EXAMPLES[:100], f) for f in (lo, lo + more))
    assert bool((small <= large).all())


def test_no_examples_give_an_empty_mask() -> None:
    mask = is_held_out([], 0.5)
    assert mask.dtype == torch.bool
    assert mask.shape == (0,)
