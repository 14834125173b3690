import math

import pytest
import torch

from onestep.methods.core.rng import Rng
from onestep.platform.data.augmentation import flip_rows

IMAGES = torch.arange(4000 * 6, dtype=torch.float32).reshape(4000, 1, 2, 3)


def test_half_of_the_images_are_mirrored_and_the_others_kept() -> None:
    flipped = flip_rows(IMAGES, Rng.seeded(0))
    kept = (flipped == IMAGES).flatten(1).all(1)
    mirrored = (flipped == IMAGES.flip(-1)).flatten(1).all(1)
    assert bool((kept ^ mirrored).all())
    assert abs(kept.double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(len(IMAGES))


def test_a_shard_is_mirrored_as_within_the_whole_batch() -> None:
    whole = flip_rows(IMAGES, Rng.seeded(0, step=3, shards=(0, 1)))
    second = flip_rows(IMAGES[2000:], Rng.seeded(0, step=3, shards=(1,)))
    assert torch.equal(whole[2000:], second)


def test_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"only images .* got shape \(4, 2\)"):
        flip_rows(torch.zeros(4, 2), Rng.seeded(0))
