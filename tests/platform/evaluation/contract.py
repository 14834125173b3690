"""What every metric that compares samples with data has to hold."""

from collections.abc import Mapping

import pytest
import torch

from onestep.platform.data.source import Mixture
from onestep.platform.evaluation.metric import AbstractMetric
from onestep.platform.evaluation.population import Population, Reference

N = 256
SHIFTS = (0.0, 1.0, 2.0, 4.0)
MIXTURE = Mixture(
    means=torch.tensor([[0.0, 0.0], [8.0, 0.0]]), std=1.0, weights=torch.tensor([0.5, 0.5])
)


def draw(seed: int, *, n: int = N, shift: float = 0.0) -> Population:
    """Two Gaussians in the plane; the first is class 0 and the second is class 1."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (n,), generator=rng)
    x = MIXTURE.means[label] + torch.randn(n, 2, generator=rng) + torch.tensor([0.0, shift])
    # A classifier that mistakes class 0 for 1 as soon as a point lies far up.
    predicted = torch.where(x[:, 1] > 3.0, 1, label)
    return Population(x=x, features=x, label=label, predicted=predicted)


class MetricContract:
    """Inherit, and give a fixture ``metric`` and what is expected of each of its numbers.

    ``at_the_floor`` is the range of each number for data against data; ``worsens`` says whether
    it grows (1) or falls (-1) as the samples move away.
    """

    at_the_floor: Mapping[str, tuple[float, float]]
    worsens: Mapping[str, int]

    @pytest.fixture
    def reference(self) -> Reference:
        return Reference(held_out=draw(0), train=draw(1, n=4 * N), mixture=MIXTURE)

    def test_data_against_data_lies_at_the_floor(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        rows = [metric.compute(draw(10 + k), reference) for k in range(8)]
        assert tuple(rows[0]) == metric.names
        assert set(rows[0]) == set(self.at_the_floor)
        for name, (low, high) in self.at_the_floor.items():
            mean = sum(row[name] for row in rows) / len(rows)
            assert low <= mean <= high, f"{name} is {mean}"

    def test_a_growing_shift_is_seen_monotonically(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        rows = [metric.compute(draw(20, shift=shift), reference) for shift in SHIFTS]
        for name, sign in self.worsens.items():
            values = [sign * row[name] for row in rows]
            assert values == sorted(values), f"{name} is {values}"
            assert values[-1] > values[0], f"{name} is {values}"

    def test_the_order_of_the_points_plays_no_role(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        samples = draw(30, shift=0.5)
        order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
        shuffled = Reference(
            held_out=reference.held_out[order.flip(0)], train=reference.train, mixture=MIXTURE
        )
        expected = metric.compute(samples, reference)
        assert metric.compute(samples[order], shuffled) == pytest.approx(expected, abs=1e-9)

    def test_it_is_a_function_of_its_fields(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        torch.manual_seed(1)
        first = metric.compute(draw(40), reference)
        torch.manual_seed(2)
        assert metric.compute(draw(40), reference) == first

    def test_it_leaves_the_points_as_they_were(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        samples = draw(50)
        before, data = samples.x.clone(), reference.held_out.x.clone()
        metric.compute(samples, reference)
        assert torch.equal(samples.x, before)
        assert torch.equal(reference.held_out.x, data)

    def test_its_names_are_of_the_family_eval(
        self, metric: AbstractMetric, reference: Reference
    ) -> None:
        assert all(name.startswith("eval/") for name in metric.compute(draw(60), reference))
