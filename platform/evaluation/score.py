"""Metrics over several draws of samples: values and intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from .bootstrap import jackknife_interval, mean_interval
from .metric import AbstractMetric, AbstractPooledMetric, Space
from .population import Population, Reference


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """One number over several draws.

    Attributes:
        value: The number.
        interval: Its interval at 95 %.
        count: Samples of a draw.
        draws: Draws that were averaged; 1 where all samples were taken together.
        space: Where the metric looks.
    """

    value: float
    interval: tuple[float, float]
    count: int
    draws: int
    space: Space


def score_by_draw(
    metrics: Sequence[AbstractMetric],
    draws: Sequence[Population],
    reference: Reference,
    *,
    seed: int,
) -> dict[str, Score]:
    """Means over draws: for metrics of as many samples as there are held-out data, and for shares.

    Args:
        metrics: Metrics.
        draws: Samples.
        reference: What they are compared with.
        seed: Seed of the bootstrap.
    """
    found: dict[str, Score] = {}
    for metric in metrics:
        rows = [metric.compute(draw, reference) for draw in draws]
        for name in rows[0]:
            values = torch.tensor([row[name] for row in rows], dtype=torch.float64)
            found[name] = Score(
                value=values.mean().item(),
                interval=mean_interval(values, seed=seed),
                count=len(draws[0]),
                draws=len(draws),
                space=metric.space,
            )
    return found


def score_together(
    metrics: Sequence[AbstractPooledMetric], draws: Sequence[Population], reference: Reference
) -> dict[str, Score]:
    """All draws as one: for metrics of the samples alone whose bias falls with their number.

    Their interval is a jackknife over draws: a bootstrap would repeat draws, and a total variation
    takes repeated points for a lump.

    Args:
        metrics: Metrics.
        draws: Samples.
        reference: What they are compared with.
    """
    everything = Population.concat(draws)
    rest = [
        Population.concat([*draws[:k], *draws[k + 1 :]])
        for k in range(len(draws))
        if len(draws) > 1
    ]
    found: dict[str, Score] = {}
    for metric in metrics:
        rows: list[Mapping[str, float]] = [metric.compute(part, reference) for part in rest]
        for name, value in metric.compute(everything, reference).items():
            without = torch.tensor([row[name] for row in rows], dtype=torch.float64)
            found[name] = Score(
                value=value,
                interval=jackknife_interval(value, without, within=metric.ranges[name]),
                count=len(everything),
                draws=1,
                space=metric.space,
            )
    return found
