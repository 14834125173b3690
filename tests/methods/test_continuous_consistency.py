"""Continuous-time consistency: its tangent, its warm-up, its two velocities, its learned weight."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardDifference,
    ForwardMode,
    Function,
)
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.learned_weighting import LOSS_WEIGHT, LogError
from onestep.methods.core.method import Reading
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.teacher import TeacherVelocity
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import ToDataTimes
from onestep.methods.core.weighting import Unweighted
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact, MethodContract, Order, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.observed import ObservedMap

SD = 0.5
WHOLE = Constant(value=1.0)
NOTHING = Constant(value=0.0)
TRAINING = ContinuousConsistency(tangent=WHOLE)
DISTILLATION = replace(TRAINING, source=TeacherVelocity())


class TestContinuousConsistencyTraining(MethodContract):
    exactness = Exact(control=replace(TRAINING, tangent=NOTHING))

    @pytest.fixture
    def method(self) -> ContinuousConsistency:
        return TRAINING


class TestContinuousConsistencyDistillation(MethodContract):
    exactness = Exact(control=replace(DISTILLATION, tangent=NOTHING))

    @pytest.fixture
    def method(self) -> ContinuousConsistency:
        return DISTILLATION


def warming(method: ContinuousConsistency, share: float) -> ContinuousConsistency:
    """With a wide offset, so that the bias is linear in what is missing of the tangent."""
    return replace(method, tangent=Constant(value=share), offset=10.0)


@final
@dataclass(frozen=True, kw_only=True)
class TheOtherSign(AbstractDerivative):
    """The derivative in the other direction of time."""

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        return -ForwardMode().along(fn, at, tangent, value=value)


def turned(method: ContinuousConsistency, share: float) -> ContinuousConsistency:
    return replace(warming(method, share), derivative=TheOtherSign())


class TestContinuousConsistencyInWarmUp(MethodContract):
    exactness = Order(
        order=1.0,
        gaps=(0.2, 0.1),
        methods=(warming(TRAINING, 0.8), warming(TRAINING, 0.9)),
        control=(turned(TRAINING, 0.8), turned(TRAINING, 0.9)),
        reference=warming(TRAINING, 1.0),
    )

    @pytest.fixture
    def method(self) -> ContinuousConsistency:
        return ContinuousConsistency(tangent=Linear(start=0.0, end=1.0))


class TestContinuousDistillationInWarmUp(MethodContract):
    exactness = Order(
        order=1.0,
        gaps=(0.2, 0.1),
        methods=(warming(DISTILLATION, 0.8), warming(DISTILLATION, 0.9)),
        control=(turned(DISTILLATION, 0.8), turned(DISTILLATION, 0.9)),
    )

    @pytest.fixture
    def method(self) -> ContinuousConsistency:
        return replace(DISTILLATION, weighting=None)


def by_differences(derivative: AbstractDerivative) -> ContinuousConsistency:
    times = ToDataTimes(law=LogitNormal(std=0.5))
    return replace(DISTILLATION, derivative=derivative, offset=10.0, times=times)


class TestContinuousConsistencyByDifferences(MethodContract):
    """Away from both ends, where a difference would leave the times between noise and data."""

    exactness = Order(
        order=2.0,
        gaps=(0.1, 0.05),
        methods=(
            by_differences(CentralDifference(step=0.1)),
            by_differences(CentralDifference(step=0.05)),
        ),
        control=(
            by_differences(ForwardDifference(step=0.1)),
            by_differences(ForwardDifference(step=0.05)),
        ),
    )

    @pytest.fixture
    def method(self) -> ContinuousConsistency:
        return replace(TRAINING, derivative=CentralDifference())


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def built(method: ContinuousConsistency, online: FlowMap, *, teacher: FlowMap = ORACLE) -> Nets:
    companions = {n: make(online).double() for n, make in method.needs.companions.items()}
    return Nets(online=online, frozen={"teacher": teacher}, companions=companions)


def small() -> FlowMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


# The tangent, against the paper's own form in angles.


def angled(net: FlowMap, point: Tensor, angle: Tensor) -> Tensor:
    """F of the paper at an angle, for data and noise of std SD, from our average velocity."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    s = cos / (cos + SD * sin)
    x = point / (cos + SD * sin)[:, None]
    end = net.jump(x, s, torch.ones_like(s))
    return (cos[:, None] * point - end) / (SD * sin)[:, None]


def at_random(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times away from both ends, states, velocities, and the average velocity's network."""
    rng = Rng.seeded(6)
    s = 0.1 + 0.8 * rng.uniform(n, dtype=torch.float64)
    x0, x1 = rng.normal(n, 2, dtype=torch.float64), rng.normal(n, 2, dtype=torch.float64)
    return s, (1.0 - s)[:, None] * x0 + s[:, None] * x1, x0, x1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_step_is_that_of_the_paper_in_angles(share: float) -> None:
    """T14: g = -cos^2 (sd F - dy/dp) - r cos sin (y + sd dF/dp), by central differences of F."""
    net = small()
    s, x, x0, x1 = at_random(64)
    angle = torch.atan2(1.0 - s, s * SD)
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    noise = SD * x0
    point, velocity = cos * x1 + sin * noise, cos * noise - sin * x1
    h = 1e-5
    rate = (
        angled(net, point + h * velocity, angle + h) - angled(net, point - h * velocity, angle - h)
    ) / (2.0 * h)
    raw = -(cos**2) * (SD * angled(net, point, angle) - velocity)
    raw = raw - share * cos * sin * (point + SD * rate)
    expected = raw / (raw.norm(dim=1, keepdim=True) + TRAINING.offset)

    one, v = torch.ones_like(s), x1 - x0
    du_ds = ForwardMode().along(lambda x, s: net(x, s, one), (x, s), (v, torch.ones_like(s)))
    found = TRAINING.step(v - net(x, s, one), du_ds, s, share=share)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)


def test_the_loss_is_that_of_the_paper_in_angles() -> None:
    """|F - F_- - g|^2 / D, whose gradient at F_- is that of -2 F g / D."""
    net, method, batch = small(), replace(TRAINING, weighting=None), pairs(64)
    s = method.times.draw(64, moment(64), dtype=torch.float64).s
    found = method.loss(built(method, net), batch, moment(64)).total
    v = batch.x1 - batch.noise
    x = (1.0 - s)[:, None] * batch.noise + s[:, None] * batch.x1
    one = torch.ones_like(s)
    with torch.no_grad():
        du_ds = ForwardMode().along(lambda x, s: net(x, s, one), (x, s), (v, one))
        g = method.step(v - net(x, s, one), du_ds, s, share=1.0)
    torch.testing.assert_close(found, g.square().sum(1) / 2.0, atol=1e-12, rtol=1e-9)

    angle = torch.atan2(1.0 - s, s * SD)
    scale = torch.cos(angle) + SD * torch.sin(angle)
    paper = -2.0 * (angled(net, x * scale[:, None], angle) * g).sum() / 2.0
    wanted = torch.autograd.grad(paper, list(net.parameters()), allow_unused=True)
    got = torch.autograd.grad(found.sum(), list(net.parameters()), allow_unused=True)
    for mine, theirs in zip(got, wanted, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-7)


def test_the_exact_map_does_not_move_along_its_own_velocity() -> None:
    """T10: distillation from the exact teacher has no step at all."""
    found = DISTILLATION.loss(built(DISTILLATION, ORACLE), pairs(256), moment(256))
    assert found.logs["error"].max() <= 1e-20


def test_the_step_of_training_has_the_noise_of_the_pairs_velocity() -> None:
    """T10: at s = 0.4 and std 0.5, df/ds has mean 0 and variance std^4 / V^2 = 0.3906."""
    n, std = 200_000, 0.5
    data = GaussianMap(mean=[0.7], std=[std])
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    s = torch.full((n,), 0.4, dtype=torch.float64)
    x, v, one = 0.6 * x0 + 0.4 * x1, x1 - x0, torch.ones(n, dtype=torch.float64)
    du_ds = ForwardMode().along(lambda x, s: data(x, s, one), (x, s), (v, one))
    rate = v - data(x, s, one) + 0.6 * du_ds
    assert rate.var().item() == pytest.approx(0.3906, abs=4.0 * 0.3906 * math.sqrt(2.0 / n))
    assert abs(rate.mean().item()) <= 4.0 * 0.625 / n**0.5
    method = replace(TRAINING, offset=1e6, sigma_data=SD)
    spread = math.sqrt(0.36 + 0.04)
    step = 1e6 * method.step(v - data(x, s, one), du_ds, s, share=1.0)
    torch.testing.assert_close(step, -0.4 * spread * rate, atol=1e-5, rtol=1e-5)


def test_a_wide_offset_has_the_gradient_of_mean_flow_to_the_data() -> None:
    """T15: the step without a bound is MeanFlow's with t = 1, times s sigma_data at each s."""
    net, batch = small(), pairs(64)
    wide = replace(TRAINING, weighting=None, offset=1e9)
    s = wide.times.draw(64, moment(64), dtype=torch.float64).s
    gradient = torch.autograd.grad(
        (1e9 * wide.loss(built(wide, net), batch, moment(64)).total * weight(s)).sum(),
        net.last.weight,  # type: ignore[arg-type]
    )[0]
    flow = MeanFlow(times=wide.times, weighting=Unweighted())
    expected = torch.autograd.grad(
        flow.loss(Nets(online=net), batch, moment(64)).total.sum(),
        net.last.weight,  # type: ignore[arg-type]
    )[0]
    assert expected.abs().max() > 1.0
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-6)


def weight(s: Tensor) -> Tensor:
    """What takes the factors of a row from the gradient: (S^2 / sd^2) (s sd) / D."""
    square = (1.0 - s) ** 2 + (SD * s) ** 2
    return 2.0 / (square / SD**2 * s * SD)


def test_the_step_is_never_longer_than_one() -> None:
    s, _, x0, x1 = at_random(64)
    far = 1e6 * (x1 - x0)
    for share in (0.0, 1.0):
        length = TRAINING.step(far, far, s, share=share).norm(dim=1)
        assert length.max() < 1.0
        assert length.min() > 0.99


def test_a_small_offset_moves_the_mean_of_tangents_that_cancel() -> None:
    drift = torch.tensor([[-3.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    s, flat = torch.full((4,), 0.5, dtype=torch.float64), torch.zeros_like(drift)
    moved = {}
    for offset in (0.03, 300.0):
        step = replace(TRAINING, offset=offset).step(drift, flat, s, share=1.0)
        moved[offset] = (step.mean(0).norm() / step.norm(dim=1).mean()).item()
    assert moved[0.03] > 0.3
    assert moved[300.0] < 0.01


def test_the_error_vanishes_as_the_square_of_a_time_near_pure_noise() -> None:
    s = torch.tensor([1e-5, 1e-4], dtype=torch.float64)
    drift = torch.ones(2, 2, dtype=torch.float64)
    near, far = TRAINING.step(drift, drift, s, share=1.0).square().sum(1)
    assert (far / near).item() == pytest.approx(100.0, rel=0.02)


def test_no_step_is_infinite_at_either_end() -> None:
    s = torch.tensor([0.0, 1.0], dtype=torch.float64)
    drift = torch.ones(2, 2, dtype=torch.float64)
    for share in (0.0, 0.5, 1.0):
        assert TRAINING.step(drift, drift, s, share=share).isfinite().all()


# The velocity.


def test_distillation_moves_along_the_teacher_and_training_along_the_pair() -> None:
    batch, net, teacher = pairs(64), small(), ObservedMap(WRONG)
    found = {}
    for method in (TRAINING, DISTILLATION):
        nets = built(method, net, teacher=teacher)
        found[method] = method.loss(nets, batch, moment(64)).logs["error"]
    assert teacher.rows == [64]
    (call,) = teacher.calls
    assert torch.equal(call.s, call.t)
    v = WRONG.velocity(call.x, call.s)
    # A pair through the same states with the teacher's velocity.
    at = call.s[:, None]
    along = Batch(x0=call.x - at * v, x1=call.x + (1.0 - at) * v, index=torch.arange(64))
    same = TRAINING.loss(built(TRAINING, net), along, moment(64)).logs["error"]
    torch.testing.assert_close(found[DISTILLATION], same)
    assert not torch.allclose(found[DISTILLATION], found[TRAINING])


def test_training_needs_no_teacher_and_distillation_one() -> None:
    assert not TRAINING.needs.frozen
    on = Domain(kind=DomainKind.DIAGONAL, t_lo=DISTILLATION.t_lo)
    assert DISTILLATION.needs.frozen == {"teacher": Reading(on=on)}


def test_a_teacher_whose_range_is_too_short_is_refused() -> None:
    teacher = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=Domain(t_hi=0.99))
    with pytest.raises(ValueError, match=r"got one with domain triangle on \[0, 0.99\]"):
        DISTILLATION.loss(built(DISTILLATION, ORACLE, teacher=teacher), pairs(8), moment(8))


# The learned weight.


def test_the_learned_weight_starts_at_one_and_adds_nothing() -> None:
    batch, net = pairs(64), small()
    learned = TRAINING.loss(built(TRAINING, net), batch, moment(64)).total
    plain = replace(TRAINING, weighting=None)
    assert torch.equal(learned, plain.loss(built(plain, net), batch, moment(64)).total)


def test_the_learned_weight_ends_at_one_over_the_error() -> None:
    """exp(w) is the mean error where w has no gradient, for w constant in time."""
    method, batch, net = TRAINING, pairs(512), small()
    nets = built(method, net)
    log_error = nets.companions[LOSS_WEIGHT]
    assert isinstance(log_error, LogError)
    error = method.loss(nets, batch, moment(512)).logs["error"].mean()
    with torch.no_grad():
        log_error.constant.copy_(error.log())
    loss = method.loss(nets, batch, moment(512)).total.mean()
    (gradient,) = torch.autograd.grad(loss, log_error.constant)
    assert abs(gradient.item()) <= 1e-9
    assert loss.item() == pytest.approx(1.0 + error.log().item())


# Construction.


def test_the_law_of_times_is_that_of_the_paper() -> None:
    """ln(sigma) is normal with mean -1 and std 1.4, sigma = (1 - s) / s."""
    s = ContinuousConsistency().times.draw(100_000, moment(100_000), dtype=torch.float64).s
    level = ((1.0 - s) / s).log()
    assert level.mean().item() == pytest.approx(-1.0, abs=4.0 * 1.4 / 100_000**0.5)
    assert level.std().item() == pytest.approx(1.4, abs=4.0 * 1.4 / 200_000**0.5)


def test_the_map_leads_to_the_data_from_the_highest_noise_level() -> None:
    assert TRAINING.domain == Domain(kind=DomainKind.TO_DATA, t_lo=1.0 / 81.0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ContinuousConsistency(tangent=Linear(start=0.0, end=1.2)), r"method\.tangent"),
        (lambda: ContinuousConsistency(sigma_data=0.0), "sigma_data > 0 and offset > 0, got 0.0"),
        (lambda: ContinuousConsistency(offset=0.0), "offset > 0, got 0.5 and 0.0"),
        (lambda: ContinuousConsistency(t_lo=-0.1), r"method\.t_lo must lie in \[0, 1\)"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
