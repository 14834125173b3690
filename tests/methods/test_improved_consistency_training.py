"""Improved consistency training: its bias, its fixed point, its grid, its distance, its dropout."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.consistency_training import ConsistencyTraining
from onestep.methods.core.distance import PseudoHuber, SquaredL2
from onestep.methods.core.dropout import dropout_masks
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.noise_weighting import InverseGap
from onestep.methods.core.pair_times import GridTimes, UniformSpacing
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.weighting import Unweighted
from onestep.methods.improved_consistency_training import ImprovedConsistencyTraining
from onestep.methods.nets.mlp import MLP
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.consistency import Bias, FixedPoint
from onestep.tests.methods.contract import Elsewhere, MethodContract, Order
from onestep.tests.methods.exactness import ORACLE
from onestep.tests.methods.misread import Misread
from onestep.tests.methods.observed import ObservedMap

LAW = LogitNormal(mean=1.1, std=2.0)


def fixed(steps: int) -> ImprovedConsistencyTraining:
    return ImprovedConsistencyTraining(times=GridTimes(steps=Constant(value=float(steps)), law=LAW))


def squared(steps: int) -> Bias:
    """Squared errors, whose bias adds to the noise and can be told from it.

    They stand for the pseudo-Huber distance, which divides each row by its noise. That falls with
    the gap as well, so that its bias over the gap stays as large as it is: measured, order 0.
    """
    return Bias(method=replace(fixed(steps), distance=SquaredL2()))


class TestImprovedConsistencyTraining(MethodContract):
    """One pair's bias is of second order; divided by its gap it is of first."""

    exactness = Order(
        order=1.0,
        gaps=(1 / 40, 1 / 80),
        methods=(squared(40), squared(80)),
        control=(Misread(method=squared(40)), Misread(method=squared(80))),
    )

    @pytest.fixture
    def method(self) -> ImprovedConsistencyTraining:
        return ImprovedConsistencyTraining()


FIVE = fixed(5)


class TestImprovedConsistencyTrainingOnACoarseGrid(MethodContract):
    """The network teaches itself and stands still, by a pseudo-Huber distance as by a square."""

    exactness = Elsewhere(minimiser=FixedPoint(ORACLE, FIVE.times.spacing.knots(5)))

    @pytest.fixture
    def method(self) -> ImprovedConsistencyTraining:
        return FIVE


def moment(n: int, *, step: int = 0, total: int = 8) -> Moment:
    return Moment(step=step, total=total, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, data: GaussianMap = ORACLE) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def losses(method: ImprovedConsistencyTraining, online: FlowMap, batch: Batch) -> Tensor:
    return method.loss(Nets(online=online), batch, moment(len(batch))).total


def test_the_grid_doubles_in_eight_equal_parts() -> None:
    steps = ImprovedConsistencyTraining().times.steps
    points = [int(steps(moment(1, step=k))) + 1 for k in range(8)]
    assert points == [11, 21, 41, 81, 161, 321, 641, 1281]


@pytest.mark.parametrize(("size", "want"), [(3 * 32 * 32, 0.029930), (3 * 64 * 64, 0.059860)])
def test_the_distance_has_the_offset_of_the_paper(size: int, want: float) -> None:
    """At distance c the pseudo-Huber distance is (sqrt(2) - 1) c."""
    distance = ImprovedConsistencyTraining().distance
    x = torch.zeros(1, size, dtype=torch.float64)
    y = x.clone()
    y[0, 0] = want
    assert distance(x, y).item() == pytest.approx((2.0**0.5 - 1.0) * want, rel=1e-4)


def test_a_wide_offset_makes_it_squared_and_a_small_one_the_norm() -> None:
    """T17: 2 c d tends to the square for large c, d to the norm for small c."""
    batch = pairs(64)
    square = losses(replace(FIVE, distance=SquaredL2()), ORACLE, batch)
    c = 1e2 * 2.0**0.5
    wide = 2.0 * c * losses(replace(FIVE, distance=PseudoHuber(scale=1e2)), ORACLE, batch)
    torch.testing.assert_close(wide, square, atol=1e-9, rtol=1e-3)
    narrow = replace(FIVE, distance=PseudoHuber(scale=1e-9), weighting=Unweighted())
    root = losses(replace(narrow, distance=SquaredL2()), ORACLE, batch).sqrt()
    torch.testing.assert_close(losses(narrow, ORACLE, batch), root, atol=1e-8, rtol=0.0)


def test_its_loss_is_that_of_consistency_training_without_an_average() -> None:
    batch = pairs(64)
    plain = ConsistencyTraining(times=FIVE.times, distance=FIVE.distance, weighting=FIVE.weighting)
    nets = Nets(online=ORACLE, target=ORACLE)
    expected = plain.loss(nets, batch, moment(64)).total
    assert torch.equal(losses(FIVE, ORACLE, batch), expected)


def test_no_gradient_flows_through_the_later_jump() -> None:
    """The gradient is that against a copy of the network, not of the difference of both jumps."""
    batch = pairs(64)
    online, copied = (GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6]) for _ in range(2))
    online.std.requires_grad_()
    torch.autograd.backward(losses(FIVE, online, batch).sum())
    found = online.std.grad
    assert found is not None
    online.std.grad = None
    plain = ConsistencyTraining(times=FIVE.times, distance=FIVE.distance, weighting=FIVE.weighting)
    nets = Nets(online=online, target=copied)
    torch.autograd.backward(plain.loss(nets, batch, moment(64)).total.sum())
    assert torch.equal(found, online.std.grad)


def test_rows_count_by_one_over_the_gap_of_their_noise_levels() -> None:
    batch = pairs(64)
    times = FIVE.times.draw(64, moment(64), dtype=torch.float64)
    gap = (1.0 - times.s) / times.s - (1.0 - times.t) / times.t
    plain = losses(replace(FIVE, weighting=Unweighted()), ORACLE, batch)
    torch.testing.assert_close(losses(FIVE, ORACLE, batch), plain / gap)


def test_both_jumps_have_the_same_dropout() -> None:
    """T22: the loss is that of two jumps with the masks of the batch, and of no others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLP(shape=(2,), domain=FIVE.domain, dropout=0.5).double().train()
        torch.nn.init.normal_(net.head.weight)
    observed, plain = ObservedMap(net), replace(FIVE, weighting=Unweighted())

    def distance() -> Tensor:
        here, there = (net.jump(call.x, call.s, call.t) for call in observed.calls)
        return plain.distance(here, there)

    with dropout_masks(Rng.seeded(8), 64):
        found = plain.loss(Nets(online=observed), pairs(64), moment(64)).total
        assert torch.equal(distance(), found)
    with dropout_masks(Rng.seeded(9), 64):
        assert not torch.equal(distance(), found)


def test_a_distance_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="scale above 0, got 0"):
        ImprovedConsistencyTraining(distance=PseudoHuber(scale=0.0))


def test_a_weight_that_leaves_out_pure_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="times must begin above t = 0, got 0"):
        ImprovedConsistencyTraining(times=GridTimes(spacing=UniformSpacing()))
    ImprovedConsistencyTraining(
        times=GridTimes(spacing=UniformSpacing()), weighting=InverseGap(power=0.0)
    )
