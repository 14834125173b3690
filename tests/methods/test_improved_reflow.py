"""Improved reflow: its minimum, what makes a robust distance legitimate, and its two terms."""

import math
from dataclasses import replace
from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import IndependentCoupling
from onestep.methods.core.distance import L1, AbstractDistance, PseudoHuber, SquaredL2
from onestep.methods.core.feature_distance import FeatureDistance
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import Reading
from onestep.methods.core.path import LinearPath, TrigonometricPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.time_law import LogitNormal, UShaped
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.improved_reflow import ImprovedReFlow
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureVelocity
from onestep.methods.reflow import ReFlow
from onestep.tests.methods.contract import Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import (
    Setting,
    assert_not_stationary,
    assert_stationary,
)

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
FIRST = GaussianMap(mean=MEAN, std=STD)
SECOND = GaussianMap(mean=MEAN, std=STD, rho=1.0)
PAIRED = Setting(data=SECOND)
FEATURES = SmallMap(shape=(2,), domain=Domain()).double()


class TestImprovedReFlow(MethodContract):
    exactness = Exact(setting=PAIRED)

    @pytest.fixture
    def method(self) -> ImprovedReFlow:
        return ImprovedReFlow()


class TestImprovedReFlowWithAnEndpoint(MethodContract):
    exactness = Exact(setting=PAIRED)

    @pytest.fixture
    def method(self) -> ImprovedReFlow:
        return ImprovedReFlow(endpoint=PseudoHuber(), endpoint_power=1.0)


class TestImprovedReFlowWithTheTeachersFeatures(MethodContract):
    through = frozenset({"teacher"})
    exactness = Exact(setting=Setting(data=SECOND, frozen={"teacher": FEATURES}))

    @pytest.fixture
    def method(self) -> ImprovedReFlow:
        return ImprovedReFlow(endpoint=FeatureDistance(features=("first",)))


@final
class Still(FlowMap):
    """A map under which nothing moves."""

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: object = None) -> Tensor:
        del s, t, condition
        return torch.zeros_like(x)


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, flow_map: GaussianMap = SECOND) -> Batch:
    x0, x1 = flow_map.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def loss(method: ImprovedReFlow, online: FlowMap, batch: Batch) -> Loss:
    return method.loss(Nets(online=online), batch, moment(len(batch)))


def times(method: ImprovedReFlow, n: int) -> Tensor:
    return method.times.draw(n, moment(n), dtype=torch.float64).t


@pytest.mark.parametrize("distance", [SquaredL2(), PseudoHuber(), PseudoHuber(scale=1.0)])
def test_every_distance_has_the_straight_flow_as_its_minimum(distance: AbstractDistance) -> None:
    method = ImprovedReFlow(distance=distance)
    assert loss(method, SECOND, pairs(256)).total.max() <= 1e-12
    assert loss(method, FIRST, pairs(256)).total.mean() >= 1e-3


def crossing_pairs(n: int, rng: Rng) -> Batch:
    """Independent pairs of data in two modes of unequal weight."""
    x0, x1 = rng.normal(n, 1, dtype=torch.float64), MIXTURE.draw(n, rng=rng)
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


MIXTURE = MixtureVelocity(weights=[0.2, 0.8], means=[[-1.5], [1.0]], stds=[0.3, 0.3])


def test_where_pairs_cross_only_the_squared_distance_finds_the_flow() -> None:
    """The others find a median of the velocities where it should be their mean."""
    setting = Setting(data=GaussianMap(mean=[0.0], std=[1.0]), batch=crossing_pairs)
    squared = ImprovedReFlow(distance=SquaredL2())
    assert_stationary(squared, MIXTURE, setting)
    assert_not_stationary(replace(squared, distance=PseudoHuber()), MIXTURE, setting)


def test_with_plain_times_and_squared_distance_it_is_reflow() -> None:
    method = ImprovedReFlow(distance=SquaredL2(), times=DiagonalTimes())
    want = ReFlow().loss(Nets(online=FIRST), pairs(64), moment(64)).total
    assert torch.equal(loss(method, FIRST, pairs(64)).total, want)


def test_times_crowd_at_both_ends_alike() -> None:
    """34.5 % of them lie in the outer fifth; n = 20 000, 4 standard errors."""
    t = times(ImprovedReFlow(), 20_000)
    for outer in (t < 0.1, t > 0.9):
        share = outer.double().mean().item()
        assert abs(share - 0.3450 / 2.0) <= 4.0 * math.sqrt(0.17 * 0.83 / 20_000)


def test_the_start_is_trained_without_an_endpoint() -> None:
    """Nothing else would train the only step, which begins at t = 0."""
    at_start = ImprovedReFlow(times=DiagonalTimes(law=UShaped(a=600.0)))
    t = times(at_start, 64)
    rows = t < 0.1
    assert 0 < int(rows.sum()) < 64
    assert loss(at_start, FIRST, pairs(64)).total[rows].min() > 1e-4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_endpoint_is_read_off_the_velocity(power: float) -> None:
    """The data predicted at t are off by (1 - t) times the velocity's error."""
    method = ImprovedReFlow(distance=SquaredL2(), endpoint=SquaredL2(), endpoint_power=power)
    batch = pairs(64)
    t = times(method, 64)
    plain = loss(replace(method, endpoint=None), FIRST, batch).terms["velocity"]
    found = loss(method, FIRST, batch).terms
    assert set(found) == {"velocity", "endpoint"}
    torch.testing.assert_close(found["velocity"], t * plain / 2.0)
    expected = (1.0 - t) ** (2.0 - power) * plain
    torch.testing.assert_close(found["endpoint"], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("power", "weight"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.25)])
def test_the_published_loss_is_had_in_its_own_units(power: float, weight: float) -> None:
    """Card 3: t H + lambda P with H = (sqrt(|e|^2 + c^2) - c) / d and c = 0.00054 d."""
    d = 48
    method = ImprovedReFlow(
        distance=PseudoHuber(scale=0.00054 * math.sqrt(d)),
        endpoint=L1(),
        endpoint_power=power,
        endpoint_weight=Constant(value=weight),
    )
    rng = Rng.seeded(3)
    x0, x1 = (rng.normal(64, 3, 4, 4, dtype=torch.float64) for _ in range(2))
    found = loss(method, Still(domain=Domain()), Batch(x0=x0, x1=x1, index=torch.arange(64))).terms
    t, c, e = times(method, 64), 0.00054 * d, (x1 - x0).flatten(1)
    huber = ((e.square().sum(1) + c * c).sqrt() - c) / d
    torch.testing.assert_close(found["velocity"], t * huber, atol=1e-12, rtol=1e-12)
    perceived = (1.0 - t) * e.abs().sum(1)  # nothing moves: x is off by the rest of the way
    want = weight * perceived / (1.0 - t) ** power
    torch.testing.assert_close(found["endpoint"], want, atol=1e-9, rtol=1e-9)


def test_the_teacher_may_say_what_is_seen_at_the_endpoint() -> None:
    seen = FeatureDistance(features=("first",))
    method = ImprovedReFlow(endpoint=seen, endpoint_power=0.0)
    assert method.needs.frozen == {"teacher": Reading()}
    assert ImprovedReFlow(endpoint=L1()).needs.frozen == {}
    teacher = SmallMap(shape=(2,), domain=Domain()).double()
    batch, t = pairs(64), times(method, 64)
    nets = Nets(online=FIRST, frozen={"teacher": teacher})
    found = method.loss(nets, batch, moment(64)).terms["endpoint"]
    x = LinearPath().at(batch.noise, batch.x1, t).x
    reached = x + (1.0 - t)[:, None] * FIRST.velocity(x, t)
    torch.testing.assert_close(found, seen(teacher, reached, batch.x1, None, moment(64)))
    assert found.min() > 0.0


def test_the_endpoint_is_finite_at_the_data() -> None:
    method = ImprovedReFlow(endpoint=SquaredL2(), times=DiagonalTimes(law=LogitNormal(mean=20.0)))
    x0, x1 = SECOND.draw(4096, rng=Rng.seeded(1))
    batch = Batch(x0=x0.float(), x1=x1.float(), index=torch.arange(4096))
    t = method.times.draw(4096, moment(4096)).t
    assert t.max() == 1.0
    assert loss(method, FIRST, batch).total.isfinite().all()


def test_crossing_pairs_leave_a_loss_and_pairs_of_a_flow_none() -> None:
    """pi c / 2 for each coordinate at uniform times; n = 100 000, 4 standard errors."""
    method = ImprovedReFlow(distance=SquaredL2(), times=DiagonalTimes())
    found = loss(method, FIRST, pairs(100_000, FIRST)).total
    error = (found.std() / len(found) ** 0.5).item()
    assert abs(found.mean().item() - math.pi * 0.9 / 2.0) <= 4.0 * error
    law = FlowMatching(times=DiagonalTimes())
    want = law.loss(Nets(online=FIRST), pairs(100_000, FIRST), moment(100_000)).total
    assert torch.equal(found, want)


def test_real_data_come_in_at_the_end() -> None:
    mix = ImprovedReFlow().needs.pairs
    assert mix is not None
    assert [mix.generated(moment(1, step)) for step in (0, 8, 9)] == [1.0, 1.0, 0.5]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="trains on StoredPairs, got coupling Independent"):
        ImprovedReFlow(coupling=IndependentCoupling())
    with pytest.raises(ValueError, match="share of generated pairs"):
        ImprovedReFlow(generated=Linear(start=0.4, end=1.2))
    with pytest.raises(ValueError, match=r"endpoint_power must be in \[0, 1\], got 1\.5"):
        ImprovedReFlow(endpoint_power=1.5)
    with pytest.raises(ValueError, match=r"endpoint_weight must stay in \[0, inf\], got -1"):
        ImprovedReFlow(endpoint_weight=Constant(value=-1.0))
    with pytest.raises(ValueError, match="off a LinearPath, got path TrigonometricPath"):
        ImprovedReFlow(endpoint=SquaredL2(), path=TrigonometricPath())
    assert ImprovedReFlow(path=TrigonometricPath(), generated=Constant(value=1.0))
