"""Annealed reflow: its oracle at every share of fresh noise, and the two methods at its ends."""

import math

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import IndependentCoupling
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Cosine, Exponential, Linear
from onestep.methods.oracle import GaussianMap
from onestep.methods.reflow import ReFlow
from onestep.methods.slim_flow import SlimFlow
from onestep.tests.methods.contract import Exact, MethodContract
from onestep.tests.methods.exactness import Setting, assert_stationary
from onestep.tests.methods.observed import ObservedMap

MEAN, STD = (0.7, -0.2), (0.3, 0.6)


def annealed(b: float) -> GaussianMap:
    """The flow whose noise and data have correlation sqrt(1 - b^2)."""
    return GaussianMap(mean=MEAN, std=STD, rho=(1.0 - b * b) ** 0.5)


PAIRED = annealed(0.0)


class TestSlimFlow(MethodContract):
    """A quarter of the run is over, and the fresh noise has come down to a half."""

    exactness = Exact(
        setting=Setting(data=PAIRED, progress=0.25),
        at=annealed(0.5),
        control=SlimFlow(fresh=Constant(value=1.0)),
    )

    @pytest.fixture
    def method(self) -> SlimFlow:
        return SlimFlow()


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=100, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = PAIRED.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def constant(b: float) -> SlimFlow:
    return SlimFlow(fresh=Constant(value=b))


def losses(method: SlimFlow, online: GaussianMap, n: int) -> Tensor:
    return method.loss(Nets(online=online), pairs(n), moment(n)).total


@pytest.mark.parametrize("b", [0.9, 0.25, 1.0])
def test_its_minimum_is_the_flow_of_the_correlation_that_is_left(b: float) -> None:
    """The contract tests b = 0.5."""
    assert_stationary(constant(b), annealed(b), Setting(data=PAIRED))


@pytest.mark.parametrize(
    ("b", "floor"), [(1.0, 1.5708), (0.9, 1.0078), (0.75, 0.6361), (0.5, 0.2618), (0.25, 0.0632)]
)
def test_what_is_left_of_the_loss_falls_with_the_fresh_noise(b: float, floor: float) -> None:
    """c b asin(b) for each coordinate; n = 100 000, 4 standard errors."""
    found = losses(constant(b), annealed(b), 100_000)
    error = (found.std() / len(found) ** 0.5).item()
    assert floor == pytest.approx(b * math.asin(b), abs=1e-4)
    assert abs(found.mean().item() - b * math.asin(b) * sum(STD)) <= 4.0 * error


@pytest.mark.parametrize(
    ("b", "bent"),
    [(1.0, 0.4292), (0.9, 0.1204), (0.75, 0.0411), (0.5, 0.00615), (0.25, 0.00034), (0.0, 0.0)],
)
def test_its_flow_straightens_faster_than_the_fresh_noise_falls(b: float, bent: float) -> None:
    """T9: the spread of the velocity along a trajectory is c (2 (1 - rho) - b asin(b)) x0^2."""
    t = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    flow, mean = annealed(b), torch.tensor(MEAN, dtype=torch.float64)
    x = flow.jump(torch.ones(2000, 2, dtype=torch.float64), torch.zeros_like(t), t)
    rate = flow.velocity(x, t) - mean
    spread = rate.var(0, correction=0) / torch.tensor(STD, dtype=torch.float64)
    exact = 2.0 * (1.0 - (1.0 - b * b) ** 0.5) - b * math.asin(b)
    assert exact == pytest.approx(bent, abs=6e-5)
    torch.testing.assert_close(spread, torch.full_like(spread, exact), atol=1e-5, rtol=0.0)


def test_without_fresh_noise_it_is_reflow_bit_for_bit() -> None:
    online = annealed(1.0)
    want = ReFlow().loss(Nets(online=online), pairs(64), moment(64)).total
    assert torch.equal(losses(constant(0.0), online, 64), want)
    assert losses(constant(0.0), PAIRED, 64).max() <= 1e-24


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0])
def test_the_noise_is_standard_normal_and_as_correlated_as_declared(b: float) -> None:
    """n = 100 000; moments within 0.02."""
    n, online = 100_000, ObservedMap(annealed(0.0))
    constant(b).loss(Nets(online=online), pairs(n), moment(n))
    (call,) = online.calls
    batch, t = pairs(n), call.t[:, None]
    inner = call.t < 0.9
    z = ((call.x - t * batch.x1) / (1.0 - t))[inner]
    x0 = batch.noise[inner]
    assert z.mean(0).abs().max() <= 0.02
    assert (z.std(0) - 1.0).abs().max() <= 0.02
    correlation = (z * x0).mean(0) / (z.std(0) * x0.std(0))
    assert (correlation - (1.0 - b * b) ** 0.5).abs().max() <= 0.02


def test_the_velocity_belongs_to_the_noise_that_was_mixed() -> None:
    """x + (1 - t) v is the data, whatever the noise."""
    n, b = 64, 0.6
    batch, online = pairs(n), ObservedMap(annealed(0.0))
    found = constant(b).loss(Nets(online=online), batch, moment(n)).total
    (call,) = online.calls
    v = (batch.x1 - call.x) / (1.0 - call.t)[:, None]
    expected = (annealed(0.0).velocity(call.x, call.t) - v).square().sum(1)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_the_default_ends_half_way_at_reflow() -> None:
    fresh = SlimFlow().fresh
    assert [fresh(moment(1, step)) for step in (0, 25, 50, 99)] == [1.0, 0.5, 0.0, 0.0]
    for schedule in (Cosine(start=1.0, end=0.0), Exponential(start=1.0, end=0.01)):
        assert SlimFlow(fresh=schedule).fresh(moment(1)) == 1.0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="SlimFlow trains on StoredPairs, got coupling Indep"):
        SlimFlow(coupling=IndependentCoupling())
    with pytest.raises(ValueError, match=r"method\.fresh must stay in \[0, 1\], got 1\.1"):
        SlimFlow(fresh=Linear(start=1.1, end=0.0))
    with pytest.raises(ValueError, match="share of generated pairs"):
        SlimFlow(generated=Constant(value=-0.1))
