import hashlib

import pytest
import torch
from sklearn.datasets import load_digits

from onestep.platform.data.digits import Digits, check
from onestep.platform.data.errors import DataAltered


def test_the_digits_are_scaled_to_their_sixteen_levels() -> None:
    x, label = Digits().load().train.everything()
    assert x.dtype == torch.float32
    assert x.shape[1:] == (1, 8, 8)
    assert (x.min(), x.max()) == (-1.0, 1.0)
    assert torch.equal(x * 8, (x * 8).round())
    assert label is not None
    assert sorted(label.unique().tolist()) == list(range(10))


def test_both_sides_together_are_the_published_digits() -> None:
    data = Digits().load()
    parts = torch.cat([data.train.x, data.held_out.x]).flatten(1).double()
    published = torch.from_numpy(load_digits().data)
    assert len(parts) == 1797
    # Sorted as one long number each, so that only the order may differ.
    weight = torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose((parts @ weight).sort().values, (published @ weight).sort().values)


def test_between_a_fifth_and_a_third_is_held_out_by_default() -> None:
    data = Digits().load()
    assert 0.2 < len(data.held_out) / 1797 < 0.3


def test_no_digit_is_on_both_sides() -> None:
    data = Digits().load()
    sides = [{x.numpy().tobytes() for x in part.x} for part in (data.train, data.held_out)]
    assert not sides[0] & sides[1]


def test_a_larger_share_keeps_what_was_held_out() -> None:
    small, large = (Digits(held_out_fraction=f).load().held_out.x for f in (0.1, 0.3))
    digests = [{hashlib.sha256(x.numpy()).digest() for x in part} for part in (small, large)]
    assert digests[0] < digests[1]


def test_the_digest_is_the_recorded_one() -> None:
    assert Digits().load().digest == (
        "895012709b085832e928bc7cc1ba7b8bc1ec9114e1f035eb6b8cebc6761b9a47"
    )


def test_another_split_has_another_digest() -> None:
    assert Digits(held_out_fraction=0.2).load().digest != Digits().load().digest


def test_altered_digits_are_refused() -> None:
    published = load_digits()
    image, label = published.images.astype("uint8"), published.target.astype("uint8")
    check(image, label)
    image[3, 4, 4] ^= 1
    with pytest.raises(DataAltered, match="install scikit-learn again"):
        check(image, label)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_share_that_leaves_a_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"held_out_fraction must be in \(0, 1\), got"):
        Digits(held_out_fraction=fraction)
