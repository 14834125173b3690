"""SoFlow: its agreement, its bias, its equivalence with alpha flow, its mix and its guidance."""

from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.alpha_flow import AlphaFlow
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.coupling import AbstractCoupling, IndependentCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Exponential, Linear
from onestep.methods.core.shape import rows_like
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import AbstractTimes, DiagonalTimes, SortedTimes
from onestep.methods.core.weighting import AdaptivePower, Unweighted
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.oracle import GaussianMap
from onestep.methods.soflow import SoFlow
from onestep.tests.methods.contract import CLASSES, MethodContract, Order, SmallMap
from onestep.tests.methods.exactness import (
    ORACLE,
    Setting,
    assert_not_stationary,
    assert_stationary,
)
from onestep.tests.methods.misread import Misread, doubled_on_the_diagonal
from onestep.tests.methods.observed import ObservedMap, TwoMaps

TIMES = SortedTimes(diagonal=Constant(value=0.25))
LATER = Linear(start=0.0, end=1.0)
"""No row sits on the diagonal at the first step, which is the one that is looked at here."""
NONE = LabelDropout(probability=0.0)


def at(ratio: float, *, mix: float = 1.0, times: AbstractTimes = TIMES) -> SoFlow:
    """Unweighted SoFlow at one ratio."""
    return SoFlow(ratio=Constant(value=ratio), mix=mix, times=times, weighting=Unweighted())


class TestSoFlow(MethodContract):
    """In the middle of its curriculum; the bias is of the order of the ratio.

    The plain loss stands for the weighted one, whose gradient is the plain one times a number for
    each sample: by a weight of one over the error the bias of 200 000 samples is only 8 standard
    errors.
    """

    exactness = Order(
        order=1.0,
        gaps=(0.2, 0.1),
        methods=(at(0.2), at(0.1)),
        control=(Misread(method=at(0.2)), Misread(method=at(0.1))),
        reference=MeanFlow(times=TIMES, weighting=Unweighted()),
    )

    @pytest.fixture
    def method(self) -> SoFlow:
        return SoFlow(times=TIMES)


@final
@dataclass(frozen=True, kw_only=True)
class NoiseAlone(AbstractMethod):
    """What SoFlow has at the oracle besides its bias: the noise of its pairs, of mean zero.

    Along a velocity that is off by d the target is off by X(s, t)(x + d) - X(s, t)(x), as the
    oracle's jump is affine in x. The mean of d is zero wherever x is.

    Attributes:
        mix: Share of the pair's velocity off the diagonal.
        times: Law of (s, t).
    """

    mix: float
    times: AbstractTimes = TIMES
    coupling: AbstractCoupling = IndependentCoupling()

    @property
    def domain(self) -> Domain:
        return Domain()

    @property
    def needs(self) -> Needs:
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        drawn = self.times.draw(len(batch), now, dtype=batch.x1.dtype)
        s, t = drawn.s, drawn.t
        x, v = LinearPath().at(batch.noise, batch.x1, s)
        share = torch.where(s == t, 1.0, self.mix)
        d = rows_like(share, v) * (v - ORACLE.velocity(x, s))
        moved = ORACLE.jump(x + d, s, t) - ORACLE.jump(x, s, t)
        error = (nets.online(x, s, t) - ORACLE(x, s, t) - moved).square().sum(1)
        return Loss(terms={"noise": error})


class TestMixedSoFlow(MethodContract):
    """With the network's own velocity, the bias is of the same order; the control doubles it."""

    exactness = Order(
        order=1.0,
        gaps=(0.2, 0.1),
        methods=(at(0.2, mix=0.25), at(0.1, mix=0.25)),
        control=(
            Misread(method=at(0.2, mix=0.25), misreading=doubled_on_the_diagonal),
            Misread(method=at(0.1, mix=0.25), misreading=doubled_on_the_diagonal),
        ),
        reference=NoiseAlone(mix=0.25),
    )

    @pytest.fixture
    def method(self) -> SoFlow:
        return SoFlow(times=TIMES, mix=0.25)


def moment(n: int, *, step: int = 0) -> Moment:
    return Moment(step=step, total=100, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def small_net() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


def gradient(loss: Tensor, net: FlowMap) -> Tensor:
    parts = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


# The agreement of two solutions.


@pytest.mark.parametrize("ratio", [0.002, 0.3, 1.0])
@pytest.mark.parametrize("mix", [0.0, 0.25, 1.0])
def test_the_gradient_is_that_of_the_distance_between_two_solutions(
    ratio: float, mix: float
) -> None:
    """|X(s, t)(x) - X(l, t)(x_l)|^2 over (l - s) (t - s), as the paper has it."""
    net, n, batch = small_net(), 64, pairs(64)
    times = SortedTimes(law=Uniform(), diagonal=LATER)
    drawn = times.draw(n, moment(n), dtype=torch.float64)
    s, t = drawn.s, drawn.t
    later = s + ratio * (t - s)
    x, v = SoFlow().path.at(batch.noise, batch.x1, s)
    with torch.no_grad():
        w = mix * v + (1.0 - mix) * net.velocity(x, s)
        ahead = net.jump(x + rows_like(later - s, x) * w, later, t)
    square = (net.jump(x, s, t) - ahead).square().sum(1)
    want = square / ((later - s) * (t - s))
    got = at(ratio, mix=mix, times=times).loss(Nets(online=net), batch, moment(n)).total
    torch.testing.assert_close(ratio * got, want, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(gradient(got, net), gradient(want, net), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_it_is_alpha_flow_whose_alpha_is_the_ratio(ratio: float, power: float) -> None:
    nets, n, weighting = Nets(online=small_net()), 64, AdaptivePower(power=power)
    mine = replace(at(ratio), weighting=weighting).loss(nets, pairs(n), moment(n)).total
    other = AlphaFlow(alpha=Constant(value=ratio), times=TIMES, weighting=weighting)
    theirs = other.loss(nets, pairs(n), moment(n)).total
    assert torch.equal(mine, theirs)
    assert torch.equal(gradient(mine, nets.online), gradient(theirs, nets.online))


def test_the_weight_takes_the_residual_over_the_ratio() -> None:
    nets, n = Nets(online=small_net()), 64
    plain = at(0.01).loss(nets, pairs(n), moment(n)).total
    weighting = AdaptivePower(power=0.75, offset=0.001)
    weighted = replace(at(0.01), weighting=weighting).loss(nets, pairs(n), moment(n))
    torch.testing.assert_close(weighted.total, plain / (plain + 0.001) ** 0.75)
    torch.testing.assert_close(weighted.logs["error"], plain.detach())


def test_a_batch_on_the_diagonal_is_flow_matching() -> None:
    n, batch, net = 64, pairs(64), ObservedMap(ORACLE)
    times = SortedTimes(law=Uniform(), diagonal=Constant(value=1.0))
    got = at(0.1, mix=0.25, times=times).loss(Nets(online=net), batch, moment(n)).total
    assert net.rows == [n]
    flow_matching = FlowMatching(times=DiagonalTimes(law=Uniform()))
    assert torch.equal(got, flow_matching.loss(Nets(online=ORACLE), batch, moment(n)).total)


@pytest.mark.parametrize(
    ("ratio", "mix", "rows"),
    [(1.0, 1.0, []), (0.1, 1.0, [48]), (1.0, 0.25, [48]), (0.1, 0.25, [48, 48])],
)
def test_only_jumps_pay_for_more_than_the_prediction(
    ratio: float, mix: float, rows: list[int]
) -> None:
    n, net = 64, ObservedMap(small_net())
    at(ratio, mix=mix).loss(Nets(online=net), pairs(n), moment(n))
    assert net.rows == [n, *rows]


def test_the_ratio_of_the_paper_falls_from_one_to_a_five_hundredth() -> None:
    ratio = SoFlow().ratio
    assert ratio(moment(1)) == 1.0
    assert ratio(moment(1, step=50)) == pytest.approx(0.002**0.5)
    assert ratio(moment(1, step=99)) == pytest.approx(0.002, rel=0.07)


# The mix.


def test_the_mix_takes_the_noise_of_the_pair_out_of_the_jumps() -> None:
    """At the oracle the residual is the mix's share of that of the pair, but for the bias."""
    n, nets = 20_000, Nets(online=ORACLE)
    times = SortedTimes(diagonal=LATER)
    size = {
        mix: at(0.001, mix=mix, times=times).loss(nets, pairs(n), moment(n)).total.mean().item()
        for mix in (0.0, 0.25, 1.0)
    }
    assert size[0.25] / size[1.0] == pytest.approx(0.25**2, rel=0.01)
    assert size[0.0] <= 1e-4 * size[1.0]


def test_the_mix_leaves_the_diagonal_alone() -> None:
    nets, n = Nets(online=small_net()), 64
    rows = TIMES.draw(n, moment(n)).diagonal_rows
    want = at(0.1).loss(nets, pairs(n), moment(n)).total
    got = at(0.1, mix=0.25).loss(nets, pairs(n), moment(n)).total
    assert torch.equal(got[rows], want[rows])
    assert not torch.equal(got, want)


# Guidance.

STD = (0.3, 0.6)
UNCONDITIONAL = GaussianMap(mean=[0.2, 0.1], std=STD)
CONDITIONAL = GaussianMap(mean=[0.7, -0.2], std=STD)
IGNORED = "ignore:method.scale without label dropout:UserWarning"


def guided(scale: float) -> TwoMaps:
    """Gaussians of one width: guidance moves the mean, over every interval."""
    mean = scale * CONDITIONAL.mean + (1.0 - scale) * UNCONDITIONAL.mean
    return TwoMaps(GaussianMap(mean=mean, std=STD), UNCONDITIONAL)


def labelled_pairs(n: int, rng: Rng) -> Batch:
    x0, x1 = CONDITIONAL.draw(n, rng=rng)
    label = torch.zeros(n, dtype=torch.long)
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=Condition(label=label))


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_fixed_point_of_guidance_has_its_scale(share: float) -> None:
    """On the diagonal, and with jumps at a ratio whose bias is far below the noise."""
    times = SortedTimes(diagonal=Constant(value=share))
    method = replace(at(0.001, mix=0.25, times=times), scale=3.0, fade=0.0, label_dropout=NONE)
    setting = Setting(data=CONDITIONAL, batch=labelled_pairs)
    assert_stationary(method, guided(3.0), setting)
    assert_not_stationary(method, guided(2.5), setting)


@pytest.mark.filterwarnings(IGNORED)
def test_guidance_fades_out_towards_the_noise() -> None:
    """The push is that of scale - 1 from s = 0.2 on, and in proportion to s below."""
    n, net, batch = 256, small_net(), pairs(256, labelled=True)
    times = SortedTimes(law=Uniform(), diagonal=LATER)
    method = replace(at(1.0, times=times), scale=3.0, label_dropout=NONE)
    observed = ObservedMap(net)
    got = method.loss(Nets(online=observed), batch, moment(n)).total
    null, prediction = observed.calls
    assert null.label is not None
    assert bool((null.label == NULL_LABEL).all())
    assert torch.equal(null.s, null.t)
    s, v = prediction.s, batch.x1 - batch.noise
    assert batch.condition is not None
    unconditional = net.velocity(null.x, s, batch.condition.null())
    push = rows_like(2.0 * (s / 0.2).clamp(max=1.0), v)
    u = net(prediction.x, s, prediction.t, batch.condition)
    want = (u - v - push * (v - unconditional)).square().sum(1)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    assert int((s < 0.2).sum()) >= 20


def test_rows_without_label_keep_their_velocity() -> None:
    n, nets, batch = 64, Nets(online=small_net()), pairs(64, labelled=True)
    method = replace(at(0.5), label_dropout=LabelDropout(probability=0.5))
    observed = ObservedMap(nets.online)
    plain = method.loss(Nets(online=observed), batch, moment(n)).total
    pushed = replace(method, scale=3.0).loss(nets, batch, moment(n)).total
    label = observed.calls[0].label
    assert label is not None
    assert torch.equal(plain == pushed, label == NULL_LABEL)


def test_guidance_without_labels_is_refused_and_without_dropout_warns() -> None:
    with pytest.warns(UserWarning, match="an unconditional velocity that the network never learns"):
        SoFlow(scale=2.0, label_dropout=NONE)
    with pytest.raises(ValueError, match="guidance needs labelled data, got data without labels"):
        SoFlow(scale=2.0).loss(Nets(online=small_net()), pairs(8), moment(8))


# Refusals.


@pytest.mark.parametrize(("start", "end"), [(1.0, 1e-5), (1.2, 0.1)])
def test_a_ratio_outside_its_range_is_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match=r"method\.ratio must stay in \[0\.0001, 1\]"):
        SoFlow(ratio=Exponential(start=start, end=end))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mix": -0.1}, r"method\.mix must lie in \[0, 1\], got -0\.1"),
        ({"scale": 0.5}, r"scale >= 1 and fade in \[0, 1\], got scale 0\.5 and fade 0\.2"),
        ({"fade": 1.5}, r"scale >= 1 and fade in \[0, 1\], got scale 1\.0 and fade 1\.5"),
    ],
)
def test_a_number_out_of_range_is_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SoFlow(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "reader"),
    [({"mix": 0.25}, r"method\.mix below 1"), ({"scale": 2.0}, r"method\.scale above 1")],
)
def test_a_velocity_that_is_never_trained_is_not_read(
    values: dict[str, float], reader: str
) -> None:
    times = SortedTimes(diagonal=Constant(value=0.0))
    assert SoFlow(times=times).domain == SoFlow().domain
    with pytest.raises(ValueError, match=f"{reader} reads the network's own velocity.*SortedTimes"):
        SoFlow(times=times, **values)  # type: ignore[arg-type]
    early = SortedTimes(diagonal=Linear(start=1.0, end=0.0, until=0.5))
    SoFlow(times=early, **values)  # type: ignore[arg-type]
