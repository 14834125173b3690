"""The held-out data that a yardstick leaves: whatever is chosen by them, it does not know."""

from dataclasses import replace

import torch

from ..data.source import Dataset, Examples
from .benchmark import held_out_rows


def remaining(dataset: Dataset, *, samples: int, seed: int) -> Dataset:
    """The same set with those held-out data that ``Benchmark.prepare`` compares nothing with.

    Args:
        dataset: The set.
        samples: Samples of a draw of the yardstick.
        seed: Its seed.

    Returns:
        The set; its digest stays that of the whole.

    Raises:
        ValueError: If fewer are left than the yardstick takes.
    """
    rows, held_out = held_out_rows(dataset, samples, seed), dataset.held_out
    is_left = torch.ones(len(held_out), dtype=torch.bool)
    is_left[rows] = False
    if int(is_left.sum()) < len(rows):
        raise ValueError(
            f"evaluation.samples must be at most half of the {len(held_out)} held-out data of "
            f"{dataset.name}, so that settings are chosen on others than they are judged on, "
            f"got {samples}"
        )
    left = Examples(
        x=held_out.x[is_left],
        label=None if held_out.label is None else held_out.label[is_left],
        tokens=None if held_out.tokens is None else held_out.tokens[is_left],
        white=held_out.white,
    )
    return replace(dataset, held_out=left)
