"""Easy consistency tuning: its bias, its first stage, its stages, its weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.core.distance import PseudoHuber, SquaredL2
from onestep.methods.core.flow_map import DomainKind, FlowMap, Velocity
from onestep.methods.core.pair_times import RatioTimes
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.weighting import Unweighted
from onestep.methods.easy_consistency_tuning import EasyConsistencyTuning
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.consistency import Bias
from onestep.tests.methods.contract import Elsewhere, MethodContract, Order
from onestep.tests.methods.exactness import ORACLE
from onestep.tests.methods.misread import Misread
from onestep.tests.methods.observed import ObservedMap


def fixed(parts: float) -> EasyConsistencyTuning:
    return EasyConsistencyTuning(times=RatioTimes(parts=Constant(value=parts)))


def squared(parts: float) -> Bias:
    """Squared errors, whose bias adds to the noise and can be told from it.

    They stand for the pseudo-Huber distance, which divides each row by its noise. That falls with
    the gap as well, so that its bias over the gap stays as large as it is: measured, order 0.
    """
    return Bias(method=replace(fixed(parts), distance=SquaredL2()))


class TestEasyConsistencyTuning(MethodContract):
    """One pair's bias is of second order; divided by its gap it is of first."""

    exactness = Order(
        order=1.0,
        gaps=(1 / 64, 1 / 128),
        methods=(squared(64.0), squared(128.0)),
        control=(Misread(method=squared(64.0)), Misread(method=squared(128.0))),
    )

    @pytest.fixture
    def method(self) -> EasyConsistencyTuning:
        return EasyConsistencyTuning()


class TestEasyConsistencyTuningOnWholePairs(MethodContract):
    """T9: pairs that end at the data are denoising, whose minimum is one Euler step."""

    exactness = Elsewhere(minimiser=Velocity(ORACLE))

    @pytest.fixture
    def method(self) -> EasyConsistencyTuning:
        return fixed(1.0)


def moment(n: int, *, step: int = 0, total: int = 8) -> Moment:
    return Moment(step=step, total=total, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def losses(method: EasyConsistencyTuning, online: FlowMap, batch: Batch) -> Tensor:
    return method.loss(Nets(online=online), batch, moment(len(batch))).total


def test_the_loss_of_whole_pairs_is_that_of_denoising() -> None:
    """T9: the distance to x1, here squared; its weight is s / (1 - s), one over the noise level."""
    batch, method = pairs(64), replace(fixed(1.0), distance=SquaredL2())
    s = method.times.draw(64, moment(64), dtype=torch.float64).s
    x = (1.0 - s)[:, None] * batch.noise + s[:, None] * batch.x1
    expected = (ORACLE.jump(x, s, torch.ones_like(s)) - batch.x1).square().sum(1) * s / (1.0 - s)
    torch.testing.assert_close(losses(method, ORACLE, batch), expected)


def test_the_stages_double_the_parts_from_2_to_256() -> None:
    parts = EasyConsistencyTuning().times.parts
    found = [parts(moment(1, step=k)) for k in range(8)]
    assert found == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


def test_rows_whose_pair_ends_at_the_data_are_taught_the_data() -> None:
    net, method, batch = ObservedMap(ORACLE), fixed(4.0), pairs(256)
    losses(method, net, batch)
    here, there = net.calls
    at_data = there.s == 1.0
    assert 0 < int(at_data.sum()) < 256
    assert torch.equal(there.x[at_data], batch.x1[at_data])
    for call in (here, there):
        at = call.s[:, None]
        torch.testing.assert_close(call.x, (1.0 - at) * batch.noise + at * batch.x1)


def test_the_default_distance_is_the_norm() -> None:
    method, batch = replace(fixed(4.0), weighting=Unweighted()), pairs(64)
    norm = losses(replace(method, distance=SquaredL2()), ORACLE, batch).sqrt()
    torch.testing.assert_close(losses(method, ORACLE, batch), norm, atol=1e-7, rtol=0.0)


def test_rows_count_by_one_over_the_gap_of_their_noise_levels() -> None:
    batch, method = pairs(64), fixed(64.0)
    times = method.times.draw(64, moment(64), dtype=torch.float64)
    gap = (1.0 - times.s) / times.s - (1.0 - times.t) / times.t
    plain = losses(replace(method, weighting=Unweighted()), ORACLE, batch)
    torch.testing.assert_close(losses(method, ORACLE, batch), plain / gap)


def test_no_gradient_flows_through_the_later_jump() -> None:
    """Nearly equal times: through both jumps, the gradients would nearly cancel."""
    method, batch = replace(fixed(4096.0), weighting=Unweighted()), pairs(256)
    online = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
    online.mean.requires_grad_()
    method = replace(method, distance=PseudoHuber(scale=1e-12))
    losses(method, online, batch).sum().backward()
    assert online.mean.grad is not None
    assert online.mean.grad.abs().max() > 1.0


@pytest.mark.parametrize("stage", range(8))
def test_single_precision_has_finite_losses_and_gradients_in_every_stage(stage: int) -> None:
    """Equal jumps, and pairs at the data, are where a norm or a weight could be no number."""
    n = 512
    online = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6]).float()
    online.mean.requires_grad_()
    batch = pairs(n).to(torch.device("cpu"), torch.float32)
    total = EasyConsistencyTuning().loss(Nets(online=online), batch, moment(n, step=stage)).total
    assert total.isfinite().all()
    total.sum().backward()
    assert online.mean.grad is not None
    assert online.mean.grad.isfinite().all()


def test_the_map_leads_to_the_data_from_the_highest_noise_level() -> None:
    domain = EasyConsistencyTuning().domain
    assert domain.kind is DomainKind.TO_DATA
    assert domain.t_lo == pytest.approx(1.0 / 81.0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: EasyConsistencyTuning(t_lo=1.0), r"method.t_lo must lie in \[0, 1\), got 1.0"),
        (lambda: fixed(0.0), r"times.parts must stay in \[1, inf\], got 0"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
