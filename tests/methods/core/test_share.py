"""Shares as whole rows: the nearest count, with both kinds where both are asked for."""

import pytest

from onestep.methods.core.share import whole_rows


@pytest.mark.parametrize(
    ("share", "rows", "count"),
    [
        (0.75, 64, 48),
        (0.3, 10, 3),
        (0.0, 4, 0),
        (1.0, 4, 4),
        (0.9, 4, 3),  # the nearest count is all
        (0.1, 4, 1),  # the nearest count is none
        (0.5, 2, 1),
        (1.0, 1, 1),
        (0.0, 1, 0),
    ],
)
def test_both_kinds_are_there(share: float, rows: int, count: int) -> None:
    assert whole_rows("method.times.diagonal", share, rows) == count


@pytest.mark.parametrize("share", [1e-9, 0.5, 1.0 - 1e-9])
def test_one_row_cannot_be_of_both_kinds(share: float) -> None:
    said = r"method.boundary of .* needs shards of at least 2 rows, got 1; lower training.shards"
    with pytest.raises(ValueError, match=said):
        whole_rows("method.boundary", share, 1)
