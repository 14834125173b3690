from dataclasses import replace

import pytest
import torch

from onestep.platform.data.digits import Digits
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import Dataset
from onestep.platform.evaluation.benchmark import held_out_rows
from onestep.platform.evaluation.remaining import remaining


@pytest.mark.parametrize(
    "dataset",
    [EightGaussians(samples=800, held_out=400).load(), Digits().load()],
    ids=["points", "images"],
)
def test_what_remains_is_what_the_yardstick_compares_nothing_with(dataset: Dataset) -> None:
    held_out = replace(dataset.held_out, tokens=torch.arange(len(dataset.held_out))[:, None])
    numbered = replace(dataset, held_out=held_out)
    used = set(held_out_rows(numbered, 150, 7).tolist())
    left = remaining(numbered, samples=150, seed=7)
    assert left.held_out.tokens is not None
    rows = left.held_out.tokens[:, 0]
    assert used | set(rows.tolist()) == set(range(len(held_out)))
    assert not used & set(rows.tolist())
    assert torch.equal(left.held_out.x, held_out.x[rows])
    if held_out.label is not None:
        assert left.held_out.label is not None
        assert torch.equal(left.held_out.label, held_out.label[rows])
    assert (left.digest, left.train) == (dataset.digest, dataset.train)


def test_more_than_half_of_the_held_out_data_leave_too_few() -> None:
    dataset = EightGaussians(samples=800, held_out=400).load()
    assert len(remaining(dataset, samples=200, seed=7).held_out) == 200
    with pytest.raises(ValueError, match=r"at most half of the 400 held-out data .* got 201"):
        remaining(dataset, samples=201, seed=7)
