"""Consistency training: its closed-form fixed point, its bias, its two schedules, its target."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.consistency_training import ConsistencyTraining
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.distance import L1, AbstractDistance, PseudoHuber
from onestep.methods.core.flow_map import DomainKind, FlowMap
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import Ema
from onestep.methods.core.pair_times import GridTimes, UniformSpacing
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler import Jumps
from onestep.methods.core.schedule import Constant, MatchedDecay, SquareRootGrowth
from onestep.methods.core.solver_step import EulerStep
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.consistency import Bias, FixedPoint, euler, karras_times, std_ratio
from onestep.tests.methods.contract import CLASSES, Elsewhere, MethodContract, Order
from onestep.tests.methods.exactness import (
    ORACLE,
    WRONG,
    Setting,
    assert_not_stationary,
    assert_stationary,
    chunk_gradients,
)
from onestep.tests.methods.misread import Misread
from onestep.tests.methods.observed import ObservedMap


def uniform(steps: int) -> ConsistencyTraining:
    times = GridTimes(spacing=UniformSpacing(), steps=Constant(value=float(steps)))
    return ConsistencyTraining(times=times)


def bias(steps: int) -> Bias:
    return Bias(method=uniform(steps))


class TestConsistencyTraining(MethodContract):
    """One pair's bias is of second order, and one pair in ``steps`` is taught."""

    exactness = Order(
        order=2.0,
        gaps=(1 / 10, 1 / 20),
        methods=(bias(10), bias(20)),
        control=(Misread(method=bias(10)), Misread(method=bias(20))),
    )

    @pytest.fixture
    def method(self) -> ConsistencyTraining:
        return ConsistencyTraining()


FIVE = uniform(5)
STILL = FixedPoint(ORACLE, FIVE.times.spacing.knots(5))


class TestConsistencyTrainingOnACoarseGrid(MethodContract):
    exactness = Elsewhere(minimiser=STILL, setting=Setting(frozen={"target": STILL}))

    @pytest.fixture
    def method(self) -> ConsistencyTraining:
        return FIVE


def moment(n: int, *, step: int = 0, total: int = 10) -> Moment:
    return Moment(step=step, total=total, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def losses(method: ConsistencyTraining, online: FlowMap, target: FlowMap, batch: Batch) -> Tensor:
    nets = Nets(online=online, target=target)
    return method.loss(nets, batch, moment(len(batch))).total


@pytest.mark.parametrize("distance", [L1(), PseudoHuber(scale=0.1)], ids=repr)
def test_the_fixed_point_is_the_same_for_every_distance(distance: AbstractDistance) -> None:
    """The law of x_t given x_s is symmetric on Gaussian data."""
    method = replace(FIVE, distance=distance)
    assert_stationary(method, STILL, Setting(frozen={"target": STILL}))


def test_a_slope_that_keeps_its_width_is_no_fixed_point() -> None:
    """Its pairs scaled by the exact flow instead of by an Euler step."""

    def exact(std: Tensor, s: float, t: float) -> Tensor:
        variances = [(1.0 - at) ** 2 + (at * std) ** 2 for at in (s, t)]
        return (variances[1] / variances[0]).sqrt()

    other = FixedPoint(ORACLE, FIVE.times.spacing.knots(5), exact)
    assert_not_stationary(FIVE, other, Setting(frozen={"target": other}))


@pytest.mark.parametrize(
    ("points", "want"),
    [
        (2, 0.010250),
        (3, 0.195318),
        (11, 0.752777),
        (18, 0.846086),
        (40, 0.929727),
        (161, 0.982396),
        (321, 0.991159),
        (641, 0.995570),
        (1281, 0.997782),
    ],
)
def test_the_fixed_point_has_the_widths_of_the_card(points: int, want: float) -> None:
    """Karras levels 80 to 0.002 and std 0.5; the width is compared with that at level 0.002."""
    found = std_ratio(karras_times(points), std=0.5) / (1.0 + (0.002 / 0.5) ** 2) ** 0.5
    assert found == pytest.approx(want, abs=1.5e-6)


def test_one_step_of_the_fixed_point_makes_data_too_narrow() -> None:
    noise = Rng.seeded(2).normal(20_000, 2, dtype=torch.float64)
    made = Jumps().sample(STILL, noise[None])
    knots = FIVE.times.spacing.knots(5)
    for k, std in enumerate((0.3, 0.6)):
        ratio = std_ratio(knots, std=std)
        assert ratio < 0.95
        assert made[:, k].std().item() == pytest.approx(ratio * std, rel=0.02)


def test_its_mean_gradient_is_that_of_distillation_by_euler_from_the_exact_teacher() -> None:
    """But for the noise of its pairs, whose mean is zero."""
    times = FIVE.times
    setting = Setting(frozen={"target": ORACLE, "teacher": ORACLE})
    distilled = ConsistencyDistillation(times=times, step=EulerStep())
    training, distillation = (
        chunk_gradients(method, ORACLE, setting, samples=20_000)
        for method in (Bias(method=FIVE), distilled)
    )
    torch.testing.assert_close(training, distillation, atol=1e-12, rtol=1e-9)
    assert distillation.abs().max() > 1e-3


def test_one_step_is_denoising_at_the_start() -> None:
    """T9: the pair is (noise level 80, data), the target is x1, the minimum the denoiser's."""
    one = ConsistencyTraining(times=GridTimes(steps=Constant(value=1.0)))
    batch = pairs(64)
    found = losses(one, ORACLE, WRONG, batch)
    t_lo = torch.full((64,), 1.0 / 81.0, dtype=torch.float64)
    x = (1.0 - 1.0 / 81.0) * batch.noise + batch.x1 / 81.0
    expected = (ORACLE.jump(x, t_lo, torch.ones_like(t_lo)) - batch.x1).square().sum(1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_the_loss_at_the_exact_map_is_the_noise_of_a_step_and_its_bias(start: float) -> None:
    """T10: Var(x_t | x_s) = (t - s)^2 c^2 / V_s for each coordinate, times the squared slope at t.

    The bias is that of an Euler step. 200 000 rows, 4 standard errors; the noise of flow matching,
    without the length of the step, is 20 away.
    """
    method, n = uniform(2), 200_000
    found = losses(method, ORACLE, ORACLE, pairs(n))
    rows = method.times.draw(n, moment(n), dtype=torch.float64).s == start
    std = torch.tensor([0.3, 0.6], dtype=torch.float64)
    before, after = ((1.0 - r) ** 2 + (r * std) ** 2 for r in (start, start + 0.5))
    noise = (0.5 * std) ** 2 / before * std**2 / after
    exact = std / before.sqrt()
    bias = (exact - euler(std, start, start + 0.5) * std / after.sqrt()) ** 2 * before
    loss = found[rows]
    error = (loss.std() / len(loss) ** 0.5).item()
    assert abs(loss.mean().item() - (noise + bias).sum().item()) <= 4.0 * error
    assert abs(loss.mean().item() - (4.0 * noise + bias).sum().item()) >= 20.0 * error


def test_both_states_lie_between_the_same_noise_and_data() -> None:
    online, target = ObservedMap(ORACLE), ObservedMap(ORACLE)
    batch = pairs(64)
    losses(FIVE, online, target, batch)
    for observed in (online, target):
        (call,) = observed.calls
        assert torch.equal(call.t, torch.ones_like(call.t))
        at = call.s[:, None]
        torch.testing.assert_close(call.x, (1.0 - at) * batch.noise + at * batch.x1)
    assert bool((online.calls[0].s < target.calls[0].s).all())


def test_the_moving_average_teaches_and_not_the_network_itself() -> None:
    batch = pairs(64)
    assert (
        losses(FIVE, ORACLE, WRONG, batch).mean() > 2.0 * losses(FIVE, ORACLE, ORACLE, batch).mean()
    )


def test_the_gradient_ignores_what_the_target_would_gain() -> None:
    """T23: changing the target's values changes the loss, never through a gradient of its own."""
    target = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
    online = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
    online.mean.requires_grad_()
    target.mean.requires_grad_()
    torch.autograd.backward(losses(FIVE, online, target, pairs(16)).sum())
    assert online.mean.grad is not None
    assert target.mean.grad is None


def test_the_grid_grows_as_in_the_paper() -> None:
    """N(k) for s_0 = 2, s_1 = 200 and 800 000 iterations."""
    steps = SquareRootGrowth(start=1, end=200)
    found = [int(steps(moment(1, step=k, total=800))) + 1 for k in (0, 100, 200, 400, 600, 800)]
    assert found == [2, 72, 101, 143, 175, 201]


def test_the_decay_follows_the_grid() -> None:
    """mu_0 on two points, and its N / 2-th root on N; the paper's form, not its code's."""
    method = ConsistencyTraining()
    decay = method.target.decay
    assert decay(moment(1, step=0)) == pytest.approx(0.9)
    points = method.times.steps(moment(1, step=5)) + 1.0
    assert points > 100.0
    assert decay(moment(1, step=5)) == pytest.approx(0.9 ** (2.0 / points))


def test_the_decay_and_the_grid_of_the_configuration_have_one_schedule() -> None:
    method = ConsistencyTraining()
    decay = method.target.decay
    assert isinstance(decay, MatchedDecay)
    assert decay.steps == method.times.steps


def test_both_jumps_see_the_same_labels() -> None:
    online, target = ObservedMap(ORACLE), ObservedMap(ORACLE)
    method = replace(FIVE, label_dropout=LabelDropout(probability=0.5))
    losses(method, online, target, pairs(64, labelled=True))
    seen, taught = online.calls[0].label, target.calls[0].label
    assert seen is not None
    assert taught is not None
    assert torch.equal(seen, taught)
    assert 0 < int((seen == NULL_LABEL).sum()) < 64


def test_the_map_leads_to_the_data_from_where_the_grid_begins() -> None:
    assert ConsistencyTraining().domain.kind is DomainKind.TO_DATA
    assert ConsistencyTraining().domain.t_lo == 1.0 / 81.0
    assert FIVE.domain.t_lo == 0.0


def test_a_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value in \(0, 1\]"):
        ConsistencyTraining(
            target=Ema(decay=MatchedDecay(value=1.1, points=2.0, steps=Constant(value=4.0)))
        )


def test_a_grid_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"times.steps must stay in \[1, inf\], got 0"):
        ConsistencyTraining(times=GridTimes(steps=Constant(value=0.0)))
