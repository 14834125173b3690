"""Pair generation: a stage whose product is a stored, checksummed set of pairs with its lineage."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.grid import UniformGrid
from ...methods.core.noise import draw_noise
from ...methods.core.ode import Heun
from ..data.pairs import Pairs, PairSet, no_pairs, write_pairs
from ..data.source import Dataset
from ..experiment import PairGeneration


def generate_pairs(
    teacher: FlowMap,
    dataset: Dataset,
    settings: PairGeneration,
    folder: Path,
    *,
    lineage: Mapping[str, Any],
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairSet:
    """Make pairs with a teacher's flow and store them.

    Heun's rule with fixed steps is used both ways, so that a pair depends on its own noise alone
    and not on how the work is cut. Labels of the generated pairs follow the training data's.

    Args:
        teacher: A velocity: the moving average of a trained flow.
        dataset: Whose labels are used, and whose training data are taken back to noise.
        settings: How many pairs and how.
        folder: Where the set goes.
        lineage: Plain values that say where the pairs come from.
        device: Where the teacher computes; the pairs are made ready on the CPU.
        progress: Told how many pairs are done, and of how many.

    Returns:
        The stored set.

    Raises:
        ValueError: If the teacher is no velocity.
    """
    solver = Heun(grid=UniformGrid(steps=settings.steps))
    solver.check(teacher.domain)
    teacher = teacher.to(device)
    total = settings.count + (len(dataset.train) if settings.real else 0)
    x0 = draw_noise(settings.count, dataset.shape, seed=settings.seed)[0]
    label = _labels(dataset, settings)
    generated = Pairs(
        x0=x0,
        x1=_in_parts(
            lambda rows, condition: solver.sample(teacher, rows[None], condition),
            x0,
            label,
            settings,
            device,
            lambda done: progress(done, total),
        ),
        label=label,
    )
    real = no_pairs(dataset.shape, labelled=dataset.train.label is not None)
    if settings.real:
        x1, real_label = dataset.train.everything()
        noise = _in_parts(
            lambda rows, condition: solver.invert(teacher, rows, condition),
            x1,
            real_label,
            settings,
            device,
            lambda done: progress(settings.count + done, total),
        )
        real = Pairs(x0=noise, x1=x1, label=real_label)
    return write_pairs(folder, generated, real, lineage)


def _labels(dataset: Dataset, settings: PairGeneration) -> Tensor | None:
    """Labels in the shares of the training data."""
    if dataset.train.label is None:
        return None
    rng = torch.Generator().manual_seed(settings.seed)
    return dataset.train.label[torch.randint(len(dataset.train), (settings.count,), generator=rng)]


def _in_parts(
    solve: Callable[[Tensor, Condition | None], Tensor],
    x: Tensor,
    label: Tensor | None,
    settings: PairGeneration,
    device: torch.device | str,
    progress: Callable[[int], None],
) -> Tensor:
    parts = []
    for first in range(0, len(x), settings.batch_size):
        rows = slice(first, first + settings.batch_size)
        condition = None if label is None else Condition(label=label[rows]).to(device)
        parts.append(solve(x[rows].to(device), condition).cpu())
        progress(min(first + settings.batch_size, len(x)))
    return torch.cat(parts)
