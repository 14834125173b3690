"""Truncated consistency: its two kinds of rows, who teaches which, and its limits."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.core.distance import SquaredL2
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.method import Reading, View
from onestep.methods.core.pair_times import RatioTimes
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler_choice import sampler_for
from onestep.methods.core.schedule import Constant
from onestep.methods.core.tail_law import LogTail
from onestep.methods.core.weighting import Unweighted
from onestep.methods.easy_consistency_tuning import EasyConsistencyTuning
from onestep.methods.oracle import GaussianMap
from onestep.methods.truncated_consistency import TruncatedConsistency
from onestep.tests.methods.consistency import Bias
from onestep.tests.methods.contract import MethodContract, Order
from onestep.tests.methods.exactness import ORACLE, WRONG, Setting, assert_order
from onestep.tests.methods.misread import Misread
from onestep.tests.methods.observed import ObservedMap

FIRST = {"teacher": ORACLE}
ALL_TIMES = LogTail()
AT_THE_CUT = LogTail(t_lo=0.499)


def fixed(parts: float, law: LogTail = ALL_TIMES) -> TruncatedConsistency:
    return TruncatedConsistency(times=RatioTimes(law=law, parts=Constant(value=parts)))


def unpinned(parts: float, law: LogTail) -> Bias:
    """Squared errors, whose bias adds to the noise and can be told from it.

    They stand for the pseudo-Huber distance, which divides each row by its noise. That falls with
    the gap as well, so that its bias over the gap stays as large as it is: measured, order 0. Rows
    at the cut have a test of their own below.
    """
    method = replace(fixed(parts, law), boundary=Constant(value=0.0), distance=SquaredL2())
    return Bias(method=method)


def first_order(law: LogTail) -> Order:
    """One pair's bias is of second order; divided by its gap it is of first."""
    methods = (unpinned(32.0, law), unpinned(64.0, law))
    return Order(
        order=1.0,
        gaps=(1 / 32, 1 / 64),
        methods=methods,
        control=(Misread(method=methods[0]), Misread(method=methods[1])),
        setting=Setting(frozen=FIRST),
    )


class TestTruncatedConsistency(MethodContract):
    exactness = first_order(ALL_TIMES)

    @pytest.fixture
    def method(self) -> TruncatedConsistency:
        return TruncatedConsistency()


def test_the_bias_of_rows_that_begin_at_the_cut_falls_with_the_gap() -> None:
    """All of them end behind it, so that the first stage teaches each."""
    assert_order(first_order(AT_THE_CUT))


@pytest.mark.parametrize("step", [0, 9])
def test_from_its_first_step_the_first_stage_is_asked_at_the_cut(step: int) -> None:
    """A row that began at the cut and ended at the data would ask it for nothing: t = 1 is data."""
    online, first = ObservedMap(ORACLE), ObservedMap(ORACLE)
    nets = Nets(online=online, frozen={"teacher": first})
    TruncatedConsistency().loss(nets, pairs(64), replace(moment(64), step=step))
    here, there = online.calls
    edge = here.s == 0.5
    assert int(edge.sum()) >= 16
    assert bool((there.s[edge] > 0.5).all())
    assert bool((there.s < 0.51).all())


METHOD = fixed(16.0)


def moment(n: int, *, shards: tuple[int, ...] = (0,)) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5, shards=shards), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def loss(
    method: TruncatedConsistency, *, n: int = 64, online: FlowMap = ORACLE, first: FlowMap = ORACLE
) -> Loss:
    return method.loss(Nets(online=online, frozen={"teacher": first}), pairs(n), moment(n))


def pinned(n: int) -> Tensor:
    return torch.arange(n) < n // 4


def test_a_quarter_of_the_rows_begins_at_the_cut_and_the_others_before_it() -> None:
    online = ObservedMap(ORACLE)
    loss(METHOD, online=online)
    here, there = online.calls
    assert bool((here.s[:16] == 0.5).all())
    assert bool((here.s[16:] < 0.5).all())
    assert bool((here.s < there.s).all())
    sigma = (1.0 - here.s) / here.s
    ratio = METHOD.times.ratio(sigma, moment(1))
    torch.testing.assert_close((1.0 - there.s) / there.s, ratio * sigma, atol=1e-9, rtol=1e-9)


def test_the_first_stage_teaches_behind_the_cut_and_the_network_before_it() -> None:
    plain = replace(METHOD, weighting=Unweighted())
    online, first = ObservedMap(ORACLE), ObservedMap(WRONG)
    found = loss(plain, online=online, first=first).logs["error"]
    here, there = online.calls
    (call,) = first.calls
    assert torch.equal(call.x, there.x)
    is_behind = there.s >= 0.5
    assert 20 < int(is_behind.sum()) < 60
    ends = [m.jump(there.x, there.s, there.t) for m in (ORACLE, WRONG)]
    target = torch.where(is_behind[:, None], ends[1], ends[0])
    expected = (ORACLE.jump(here.x, here.s, here.t) - target).square().sum(1).sqrt()
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


def test_each_kind_of_row_counts_by_its_own_mean() -> None:
    found = loss(METHOD)
    error, edge = found.logs["error"], pinned(64)
    online = ObservedMap(ORACLE)
    loss(METHOD, online=online)
    here, there = online.calls
    weighted = METHOD.weighting(error, here.s, there.s)
    parts = {name: term.mean() for name, term in found.terms.items()}
    torch.testing.assert_close(parts["consistency"], weighted[~edge].mean())
    torch.testing.assert_close(parts["boundary"], 0.1 * weighted[edge].mean())
    assert torch.equal(found.terms["boundary"] != 0.0, edge)


def test_with_the_cut_at_the_data_it_is_easy_consistency_tuning() -> None:
    """T20: nothing lies behind the cut but the data, where every map is the identity."""
    times = RatioTimes(law=LogTail(t_hi=1.0 - 1e-12), parts=Constant(value=16.0))
    whole = replace(METHOD, times=times, boundary=Constant(value=0.0))
    plain = EasyConsistencyTuning(times=times)
    first = GaussianMap(mean=[9.0, 9.0], std=[0.3, 0.6])
    expected = plain.loss(Nets(online=ORACLE), pairs(64), moment(64)).total
    torch.testing.assert_close(loss(whole, first=first).total, expected, atol=1e-9, rtol=1e-9)


def test_without_the_first_stage_a_constant_has_no_loss_but_at_the_cut() -> None:
    """The failure that rows across the cut prevent: a network that agrees with itself."""

    class Constantly(FlowMap):
        def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: object = None) -> Tensor:
            return -x / (1.0 - s).clamp(min=1e-9)[:, None]

    online = ObservedMap(Constantly(domain=Domain()))
    found = loss(METHOD, n=256, online=online)
    _, there = online.calls
    is_behind = there.s >= 0.5
    assert found.logs["error"][~is_behind].max() <= 1e-7
    assert found.logs["error"][is_behind].mean() > 0.1
    assert int(is_behind.sum()) < 256


def test_the_map_makes_samples_from_noise_alone() -> None:
    """From the first time that training visits, which samples are scaled to."""
    assert METHOD.domain == Domain(kind=DomainKind.TILING, steps=1, t_lo=1.0 / 81.0)
    assert METHOD.domain.admits(1.0 / 81.0, 1.0)
    assert not METHOD.domain.admits(1.0 / 81.0, 0.5)
    online = ObservedMap(ORACLE)
    online.domain = METHOD.domain
    noise = Rng.seeded(2).normal(1, 64, 2, dtype=torch.float64)
    sampler = sampler_for(METHOD.domain, 1)
    assert sampler is not None
    sampler.sample(online, noise)
    (call,) = online.calls
    assert bool((call.s == 1.0 / 81.0).all())
    torch.testing.assert_close(call.x, noise[0] * 80.0 / 81.0)
    assert sampler_for(METHOD.domain, 2) is None
    on = Domain(kind=DomainKind.TO_DATA, t_lo=METHOD.cut)
    assert METHOD.needs.frozen == {"teacher": Reading(view=View.JUMP, on=on)}


def test_a_law_follows_its_own_distribution_function() -> None:
    """Median and quartiles of 20 000 times, and the two ends."""
    law = LogTail()
    drawn = law.draw(20_000, moment(20_000).rng, dtype=torch.float64)
    assert drawn.min() >= 1.0 / 81.0
    assert drawn.max() <= 0.5
    for chance in (0.25, 0.5, 0.75):
        at = drawn.quantile(chance)
        assert law.cdf(at).item() == pytest.approx(chance, abs=4.0 * 0.5 / 20_000**0.5)
    ends = law.cdf(torch.tensor([0.0, 1.0 / 81.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))


def test_the_law_has_the_density_of_its_formula() -> None:
    law, h = LogTail(core=0.1), 1e-6
    level = torch.tensor([0.01, 0.1, 1.0, 4.0], dtype=torch.float64)
    rise = law.cdf(torch.sigmoid(-(level - h))) - law.cdf(torch.sigmoid(-(level + h)))
    shape = rise * (level.square() + 0.01).sqrt()
    torch.testing.assert_close(shape, shape[0].expand(4), atol=0.0, rtol=1e-5)


@pytest.mark.parametrize(
    "domain", [Domain(t_lo=0.6), Domain(t_hi=0.9), Domain(kind=DomainKind.DIAGONAL)], ids=repr
)
def test_a_first_stage_without_the_jumps_is_refused(domain: Domain) -> None:
    first = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=domain)
    with pytest.raises(
        ValueError, match=r"asks its teacher for domain to_data on \[0\.\d+, 1\], got one"
    ):
        loss(METHOD, first=first)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: TruncatedConsistency(times=RatioTimes()), "LogTail, got LogitNormal"),
        (lambda: TruncatedConsistency(boundary=Constant(value=1.0)), r"method\.boundary must stay"),
        (
            lambda: TruncatedConsistency(boundary_weight=Constant(value=-1.0)),
            r"method\.boundary_weight must stay",
        ),
        (lambda: LogTail(t_hi=1.0), "0 < t_lo < t_hi < 1"),
        (lambda: LogTail(core=0.0), "core > 0"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
