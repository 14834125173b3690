"""Reflow: its fixed point, its straight paths, and what it shares with flow matching."""

from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import IndependentCoupling, StoredPairs
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.ode import Euler, Heun
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle import GaussianMap
from onestep.methods.reflow import ReFlow
from onestep.tests.methods.contract import Exact, MethodContract
from onestep.tests.methods.exactness import (
    Setting,
    assert_not_stationary,
    assert_stationary,
)

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
FIRST = GaussianMap(mean=MEAN, std=STD)
"""The rectified flow of independent pairs."""
SECOND = GaussianMap(mean=MEAN, std=STD, rho=1.0)
"""The rectified flow of the first one's pairs."""


class TestReFlow(MethodContract):
    exactness = Exact(setting=Setting(data=SECOND))

    @pytest.fixture
    def method(self) -> ReFlow:
        return ReFlow()


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def generated(n: int, rng: Rng, *, teacher: GaussianMap = FIRST) -> Batch:
    """Pairs (x0, X(0, 1)(x0)) of a flow."""
    x0 = rng.normal(n, 2, dtype=torch.float64)
    start, end = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    return Batch(x0=x0, x1=teacher.jump(x0, start, end), index=torch.arange(n))


def exactly(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def losses(flow_map: GaussianMap, batch: Batch) -> Tensor:
    return ReFlow().loss(Nets(online=flow_map), batch, moment(len(batch))).total


def test_the_straight_flow_has_the_closed_form_of_its_fixed_point() -> None:
    """v(x, t) = m + (c - 1) / (1 + (c - 1) t) (x - t m)."""
    rng = Rng.seeded(3)
    x, t = rng.normal(64, 2, dtype=torch.float64), rng.uniform(64, dtype=torch.float64)
    mean, std = exactly(MEAN), exactly(STD)
    at = t[:, None]
    expected = mean + (std - 1.0) / (1.0 + (std - 1.0) * at) * (x - at * mean)
    torch.testing.assert_close(SECOND.velocity(x, t), expected, atol=1e-12, rtol=1e-12)


def test_the_pairs_of_a_flow_leave_no_loss_at_the_straight_flow() -> None:
    batch = generated(512, Rng.seeded(1))
    assert losses(SECOND, batch).max() <= 1e-24
    assert losses(FIRST, batch).mean() >= 0.01


def test_reflow_leads_from_the_first_flow_to_the_second_and_stays_there() -> None:
    for teacher in (FIRST, SECOND):

        def batch(n: int, rng: Rng, teacher: GaussianMap = teacher) -> Batch:
            return generated(n, rng, teacher=teacher)

        setting = Setting(data=SECOND, batch=batch)
        assert_stationary(ReFlow(), SECOND, setting)
        assert_not_stationary(ReFlow(), FIRST, setting)


def test_on_independent_pairs_it_learns_the_first_flow() -> None:
    setting = Setting(data=FIRST)
    assert_stationary(ReFlow(), FIRST, setting)
    assert_not_stationary(ReFlow(), SECOND, setting)


@final
class PartlyPaired(FlowMap):
    """The velocity of N(0.7, 0.6^2) where a share of the pairs is the flow's own, on a line.

    Both kinds of pairs meet at x: those of the flow with N(t m, (1 - t + t c)^2), which move
    straight, and the others with N(t m, (1 - t)^2 + t^2 c^2).
    """

    def __init__(self, share: float) -> None:
        super().__init__(domain=Domain(kind=DomainKind.DIAGONAL))
        self.share = share
        self.paired, self.crossing = (GaussianMap(mean=[0.7], std=[0.6], rho=r) for r in (1.0, 0.0))

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        del t, condition
        at = s[:, None]
        widths = 1.0 - at + 0.6 * at, ((1.0 - at) ** 2 + (0.6 * at) ** 2).sqrt()
        own, other = (
            share / width * (-0.5 * ((x - 0.7 * at) / width) ** 2).exp()
            for share, width in zip((self.share, 1.0 - self.share), widths, strict=True)
        )
        mine, theirs = self.paired.velocity(x, s), self.crossing.velocity(x, s)
        return (own * mine + other * theirs) / (own + other)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Pairs, of which the share is the flow's own and the others are independent."""
        is_own = rng.uniform(n)[:, None] < self.share
        x0, fresh = rng.normal(n, 1, dtype=torch.float64), rng.normal(n, 1, dtype=torch.float64)
        return Batch(x0=x0, x1=0.7 + 0.6 * torch.where(is_own, x0, fresh), index=torch.arange(n))


@pytest.mark.parametrize(
    ("share", "floor"), [(0.0, 0.9425), (0.4, 0.6348), (0.9, 0.1178), (1.0, 0.0)]
)
def test_real_data_with_fresh_noise_leave_a_floor(share: float, floor: float) -> None:
    """T10. 200 000 pairs, 4 standard errors; more than the share of the floor of fresh noise."""
    flow, n = PartlyPaired(share), 200_000
    nets = Nets(online=flow)
    loss = ReFlow().loss(nets, flow.draw(n, Rng.seeded(1)), moment(n)).total.detach()
    error = (loss.std() / n**0.5).item()
    assert abs(loss.mean().item() - floor) <= 4.0 * error + 6e-5
    if share == 0.4:
        assert loss.mean().item() >= 0.6 * 0.9425 + 20.0 * error


def test_with_fresh_noise_it_learns_the_flow_of_both_kinds_of_pairs() -> None:
    mixed = PartlyPaired(0.4)
    setting = Setting(data=mixed.paired, batch=mixed.draw)
    assert_stationary(ReFlow(), mixed, setting)
    for pure in (mixed.paired, mixed.crossing):
        assert_not_stationary(ReFlow(), pure, setting)


def test_a_further_round_has_the_same_pairs() -> None:
    first = generated(256, Rng.seeded(1), teacher=FIRST)
    second = generated(256, Rng.seeded(1), teacher=SECOND)
    torch.testing.assert_close(second.x1, first.x1, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_one_euler_step_of_the_straight_flow_is_exact(steps: int) -> None:
    noise = Rng.seeded(2).normal(64, 2, dtype=torch.float64)
    solver = Euler(grid=UniformGrid(steps=steps))
    exact = exactly(MEAN) + exactly(STD) * noise
    straight = solver.sample(Velocity(SECOND), noise[None])
    torch.testing.assert_close(straight, exact, atol=1e-12, rtol=1e-12)
    curved = solver.sample(Velocity(FIRST), noise[None])
    assert (curved - exact).square().sum(1).mean().sqrt() >= 0.01


def test_pairs_made_by_a_fixed_step_solver_are_those_of_the_flow() -> None:
    """Heun's error at 100 steps is of order 1e-4."""
    batch = generated(64, Rng.seeded(1))
    made = Heun(grid=UniformGrid(steps=100)).sample(Velocity(FIRST), batch.noise[None])
    torch.testing.assert_close(made, batch.x1, atol=1e-3, rtol=0.0)


def test_reflow_is_flow_matching_on_stored_pairs() -> None:
    n, batch = 64, generated(64, Rng.seeded(1))
    nets = Nets(online=FIRST)
    flow_matching = FlowMatching(coupling=StoredPairs())
    reflow = ReFlow(generated=Constant(value=1.0))
    got = reflow.loss(nets, batch, moment(n)).total
    assert torch.equal(got, flow_matching.loss(nets, batch, moment(n)).total)


def test_the_share_of_generated_pairs_rises_from_four_to_nine_tenths() -> None:
    mix = ReFlow().needs.pairs
    assert mix is not None
    shares = [mix.generated(Moment(step=step, total=10, rng=Rng.seeded(0))) for step in (0, 5, 10)]
    assert shares == pytest.approx([0.4, 0.65, 0.9])


def test_another_coupling_is_refused() -> None:
    with pytest.raises(ValueError, match="reflow trains on StoredPairs, got coupling Independent"):
        ReFlow(coupling=IndependentCoupling())


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="share of generated pairs"):
        ReFlow(generated=Linear(start=0.4, end=1.2))


def test_data_without_noise_is_refused() -> None:
    x1 = torch.zeros(8, 2)
    batch = Batch(x1=x1, index=torch.arange(8))
    with pytest.raises(ValueError, match="needs a set of pairs"):
        ReFlow().coupling.pair(batch, {}, moment(8))
