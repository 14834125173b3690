"""Pair generation: a teacher makes a stored, checksummed set of pairs before a run's first step."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...methods.core.autoguidance import Guided, Unconditional
from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.grid import UniformGrid
from ...methods.core.noise import draw_noise
from ...methods.core.ode import Heun
from ...methods.core.rng import Purpose
from ..data.pair_parts import PairParts
from ..data.pairs import Pairs, PairSet, no_pairs, read_pairs, write_pairs
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
    and not on how the work is cut. Each batch is written as it is made: if the making is cut off,
    the next attempt at the same set in the same folder goes on from there. Labels or captions of
    the generated pairs follow those of the training data. Under guidance, data are taken back to
    noise by the guided flow too: pairs of two flows would cross.

    Args:
        teacher: A velocity: the moving average of a trained flow.
        dataset: Whose labels or captions are used, and whose training data are taken back to noise.
        settings: How many pairs and how.
        folder: Where the set goes.
        lineage: Plain values that say where the pairs come from.
        device: Where the teacher computes; the pairs are made ready on the CPU.
        progress: Told how many pairs are done, and of how many.

    Returns:
        The stored set.

    Raises:
        ValueError: If the teacher is no velocity, or guidance meets data without labels.
    """
    check_guidance(settings, dataset)
    solver = Heun(grid=UniformGrid(steps=settings.steps))
    solver.check(teacher.domain)
    flow = teacher.to(device)
    if settings.guidance != 1.0:  # at 1 half of the work would be for nothing
        flow = Guided(flow, Unconditional(flow), scale=settings.guidance)
    total = settings.count + (len(dataset.train) if settings.real else 0)
    decided = {
        "lineage": dict(lineage),
        "rows": settings.batch_size,
        "on": torch.device(device).type,
    }
    parts = PairParts(folder, decided)
    x0 = draw_noise(settings.count, dataset.shape, seed=settings.seed, purpose=Purpose.PAIRS)[0]
    condition = _conditions(dataset, settings)
    generated = Pairs(
        x0=x0,
        x1=_in_parts(
            lambda rows, condition: solver.sample(flow, rows[None], condition),
            x0,
            condition,
            settings.batch_size,
            device,
            partial(parts.part, "generated"),
            lambda done: progress(done, total),
        ),
        condition=condition,
    )
    real = no_pairs(dataset.shape)
    if settings.real:
        x1, _ = dataset.train.everything()
        noise = _in_parts(
            lambda rows, condition: solver.invert(flow, rows, condition),
            x1,
            dataset.train.condition(),
            settings.batch_size,
            device,
            partial(parts.part, "real"),
            lambda done: progress(settings.count + done, total),
        )
        real = Pairs(x0=noise, x1=x1, condition=dataset.train.condition())
    write_pairs(folder, generated, real, lineage)
    parts.clear()
    return read_pairs(folder)  # mapped: what was made need not stay in memory


def check_guidance(settings: PairGeneration, dataset: Dataset) -> None:
    """Refuse guidance that has nothing to go by.

    Args:
        settings: How pairs are made.
        dataset: Whose labels or captions are used.

    Raises:
        ValueError: If there is guidance and there are no labels.
    """
    if settings.guidance != 1.0 and dataset.train.condition() is None:
        raise ValueError(
            f"pairs.guidance needs labelled data, got {settings.guidance:g} and "
            f"{dataset.name} without labels; allowed there is 1"
        )


def _conditions(dataset: Dataset, settings: PairGeneration) -> Condition | None:
    """Labels or captions in the shares of the training data."""
    rng = torch.Generator().manual_seed(settings.seed)
    rows = torch.randint(len(dataset.train), (settings.count,), generator=rng)
    return dataset.train.condition(rows)


def _in_parts(
    solve: Callable[[Tensor, Condition | None], Tensor],
    x: Tensor,
    condition: Condition | None,
    rows_each: int,
    device: torch.device | str,
    part: Callable[[int, Callable[[], Tensor]], Tensor],
    progress: Callable[[int], None],
) -> Tensor:
    def make(rows: slice) -> Tensor:
        told = None if condition is None else condition[rows].to(device)
        return solve(x[rows].to(device), told).cpu()

    parts = []
    for number, first in enumerate(range(0, len(x), rows_each)):
        rows = slice(first, first + rows_each)
        parts.append(part(number, partial(make, rows)))
        progress(min(first + rows_each, len(x)))
    return torch.cat(parts)
