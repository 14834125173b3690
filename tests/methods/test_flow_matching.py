"""Flow matching: its floor, its paths, and what is left of it at one step."""

import math

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.coupling import IndependentCoupling, MinibatchOTCoupling, StoredPairs
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.ode import RungeKutta4
from onestep.methods.core.path import AbstractPath, LinearPath, TrigonometricPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract
from onestep.tests.methods.exactness import ORACLE, WRONG, Setting, assert_exactness
from onestep.tests.methods.observed import AffineMap, ObservedMap

SAMPLES = 200_000


class TestFlowMatching(MethodContract):
    exactness = Exact()

    @pytest.fixture
    def method(self) -> FlowMatching:
        return FlowMatching()


def losses(flow_map: FlowMap, data: GaussianMap, *, samples: int = SAMPLES) -> Tensor:
    """Losses of a map on pairs of noise and data."""
    x0, x1 = data.draw(samples, rng=Rng.seeded(1))
    batch = Batch(x0=x0, x1=x1, index=torch.arange(samples))
    now = Moment(step=0, total=1, rng=Rng.seeded(2), batch_size=samples)
    return FlowMatching().loss(Nets(online=flow_map), batch, now).total.detach()


def standard_error(values: Tensor) -> float:
    return (values.std() / len(values) ** 0.5).item()


@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_the_floor_is_pi_c_over_two_for_each_coordinate(std: float) -> None:
    """200 000 samples of two coordinates, 4 standard errors."""
    data = GaussianMap(mean=[0.7, -0.2], std=std)
    found = losses(data, data)
    assert abs(found.mean().item() - math.pi * std) <= 4.0 * standard_error(found)


def test_another_velocity_lies_above_the_floor() -> None:
    """The same 200 000 pairs and times for both maps; 20 standard errors of the difference."""
    excess = losses(WRONG, ORACLE) - losses(ORACLE, ORACLE)
    assert excess.mean() >= 20.0 * standard_error(excess)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()])
def test_each_path_has_its_own_velocity(path: AbstractPath) -> None:
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], path=path)
    other = TrigonometricPath() if isinstance(path, LinearPath) else LinearPath()
    control = FlowMatching(path=other)
    assert_exactness(Exact(setting=Setting(data=data), control=control), FlowMatching(path=path))


def test_the_velocities_of_two_paths_end_at_the_same_points() -> None:
    """128 Runge-Kutta steps of each; the error falls with their fourth power."""
    noise = Rng.seeded(3).normal(64, 2, dtype=torch.float64)
    solver = RungeKutta4(grid=UniformGrid(steps=128))
    mean, std = ORACLE.mean, ORACLE.std
    for path in (LinearPath(), TrigonometricPath()):
        data = GaussianMap(mean=mean, std=std, path=path)
        x1 = solver.sample(data, noise[None])
        torch.testing.assert_close(x1, mean + std * noise, atol=1e-6, rtol=0.0)


def test_transport_within_a_batch_of_one_is_an_independent_coupling() -> None:
    """And within a larger one it is not."""
    x0, x1 = ORACLE.draw(8, rng=Rng.seeded(1))
    for rows, is_same in ((1, True), (8, False)):
        batch = Batch(x0=x0[:rows], x1=x1[:rows], index=torch.arange(rows))
        found = []
        for coupling in (IndependentCoupling(), MinibatchOTCoupling()):
            now = Moment(step=0, total=1, rng=Rng.seeded(2), batch_size=rows)
            paired, _ = coupling.pair(batch, {}, now)
            loss = FlowMatching(coupling=coupling).loss(Nets(online=ORACLE), paired, now)
            found.append(loss.total)
        assert torch.equal(*found) is is_same


def minimiser_near_noise(x0: Tensor, x1: Tensor) -> AffineMap:
    """The affine map of least loss at times near 0, where the best velocity is affine."""
    method = FlowMatching(
        times=DiagonalTimes(law=LogitNormal(mean=-20.0, std=1.0)), coupling=StoredPairs()
    )
    net = AffineMap(ORACLE, size=x0.shape[1])
    batch = Batch(x0=x0, x1=x1, index=torch.arange(len(x0)))
    optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        now = Moment(step=0, total=1, rng=Rng.seeded(2), batch_size=len(x0))
        loss = method.loss(Nets(online=net), batch, now).total.mean()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    return net


def test_one_euler_step_collapses_to_the_mean_under_an_independent_coupling() -> None:
    """Data on two points; 100 000 pairs leave an error of about 1 / 316 in each coefficient."""
    rng = Rng.seeded(6)
    x0 = rng.normal(100_000, 2, dtype=torch.float64)
    side = 2.0 * (rng.uniform(100_000, dtype=torch.float64) < 0.75) - 1.0
    x1 = side[:, None] * torch.tensor([1.0, -0.5], dtype=torch.float64)
    fresh = Rng.seeded(7).normal(1000, 2, dtype=torch.float64)
    start, end = torch.zeros(1000, dtype=torch.float64), torch.ones(1000, dtype=torch.float64)

    independent = minimiser_near_noise(x0, x1).jump(fresh, start, end).detach()
    expected = x1.mean(0).expand_as(independent)
    torch.testing.assert_close(independent, expected, atol=0.05, rtol=0.0)

    straight = minimiser_near_noise(x0, 0.5 * x0 + 0.3).jump(fresh, start, end).detach()
    torch.testing.assert_close(straight, 0.5 * fresh + 0.3, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_labels_are_dropped_at_the_stated_rate(probability: float, share: float) -> None:
    """10 000 rows, 4 standard errors."""
    n = 10_000
    net = ObservedMap(ORACLE)
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    label = torch.arange(n) % CLASSES
    batch = Batch(x0=x0, x1=x1, index=torch.arange(n), condition=Condition(label=label))
    method = FlowMatching(label_dropout=LabelDropout(probability=probability))
    method.loss(Nets(online=net), batch, Moment(step=0, total=1, rng=Rng.seeded(2)))
    seen = net.calls[0].label
    assert seen is not None
    dropped = seen == NULL_LABEL
    assert torch.equal(seen[~dropped], label[~dropped])
    error = (probability * (1.0 - probability) / n) ** 0.5
    assert abs(dropped.double().mean().item() - share) <= 4.0 * error
