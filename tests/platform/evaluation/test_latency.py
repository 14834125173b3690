import random
from typing import Final

import pytest
import torch
from torch import nn

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.grid import ListGrid
from onestep.methods.core.sampler import Jumps
from onestep.platform.evaluation.latency import latency_of, median_interval

_REPEATS: Final = 7


class Clocked(FlowMap):
    """Stands still, and moves a clock: 10 s each time, but 1000 s in each of the first batches."""

    def __init__(self) -> None:
        super().__init__(domain=Domain())
        self.weight = nn.Parameter(torch.zeros(()))
        self.now, self.evaluations = 0.0, 0
        self.rows: set[int] = set()
        self.labels: list[int] = []

    def forward(
        self,
        x: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        condition: Condition | None = None,
    ) -> torch.Tensor:
        assert condition is not None
        assert condition.label is not None
        self.labels = condition.label.tolist()
        self.now += 1000.0 if self.evaluations < 6 else 10.0
        self.evaluations += 1
        self.rows.add(len(x))
        return torch.zeros_like(x)


def test_a_latency_is_that_of_one_sample_of_a_warm_batch_with_its_conditions() -> None:
    flow_map, sampler = Clocked(), Jumps(grid=ListGrid(inner=(0.3,)))
    found = latency_of(
        flow_map,
        sampler,
        nfe=2,
        shape=(2,),
        condition=Condition(label=torch.arange(4)),
        batch_size=4,
        repeats=_REPEATS,
        clock=lambda: flow_map.now,
    )
    # Two evaluations of 10 s for four samples; three batches to warm up.
    assert (found.value, found.interval) == (5000.0, (5000.0, 5000.0))
    assert (flow_map.evaluations, flow_map.rows) == (2 * (3 + _REPEATS), {4})
    assert flow_map.labels == [0, 1, 2, 3]
    assert (found.name, found.nfe, found.sampler) == ("latency/sample_ms", 2, str(sampler))
    threads = torch.get_num_threads()
    assert (found.count, found.draws) == (4, _REPEATS)
    assert found.space == f"cpu, {threads} thread{'s' if threads > 1 else ''}"


@pytest.mark.parametrize(("batch_size", "repeats"), [(0, 10), (1, 5)])
def test_a_latency_without_an_interval_is_refused(batch_size: int, repeats: int) -> None:
    with pytest.raises(ValueError, match=f"6 repeats, got {batch_size} and {repeats}"):
        latency_of(
            Clocked(),
            Jumps(),
            nfe=1,
            shape=(2,),
            condition=None,
            batch_size=batch_size,
            repeats=repeats,
        )


def test_an_interval_of_a_median_has_the_ranks_of_the_sign_test() -> None:
    """Ranks from tables of the binomial law: 1 and 6 of 6, 6 and 15 of 20, 9 and 22 of 30."""
    for n, low, high in ((6, 1, 6), (20, 6, 15), (30, 10, 21)):
        values = [float(k) for k in range(1, n + 1)]
        random.Random(n).shuffle(values)
        assert median_interval(values) == ((n + 1) / 2, float(low), float(high))


def test_an_interval_of_a_median_covers_that_of_a_skewed_law() -> None:
    rng, median = random.Random(0), 1.0  # of exp of a normal number
    covered = 0
    for _ in range(2000):
        _, low, high = median_interval([rng.lognormvariate(0.0, 1.0) for _ in range(20)])
        covered += low <= median <= high
    # 95.86 % exactly; three standard errors below.
    assert covered / 2000 == pytest.approx(0.9586, abs=3 * 0.0045)
