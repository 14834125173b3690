"""Alpha flow: its limits, its bias, its floor, its curriculum and what each phase costs."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.alpha_flow import AlphaFlow, Shift
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.guidance import Guidance, LabelDropout
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear, Schedule, Sigmoid
from onestep.methods.core.shape import rows_like
from onestep.methods.core.tiling import EqualTiles, tiled_velocity
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import AbstractTimes, DiagonalTimes, SortedTimes
from onestep.methods.core.weighting import AdaptivePower, Unweighted
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract, Order, SmallMap
from onestep.tests.methods.exactness import ORACLE
from onestep.tests.methods.fixed_times import FixedTimes
from onestep.tests.methods.misread import Misread
from onestep.tests.methods.observed import ObservedMap

TIMES = SortedTimes(diagonal=Constant(value=0.25))
MEAN_FLOW = MeanFlow(times=TIMES, weighting=Unweighted())


def at(alpha: float, *, times: AbstractTimes = TIMES, shift: Shift = Shift.SAMPLE) -> AlphaFlow:
    """Unweighted alpha flow at one alpha."""
    return AlphaFlow(alpha=Constant(value=alpha), times=times, shift=shift, weighting=Unweighted())


class TestAlphaFlow(MethodContract):
    """In the middle of its curriculum, where alpha is a half; the bias is of order alpha.

    The plain loss stands for the weighted one, whose gradient is the plain one times a number for
    each sample: by a weight of one over the error the bias of 200 000 samples is only 4 standard
    errors.
    """

    exactness = Order(
        order=1.0,
        gaps=(0.2, 0.1),
        methods=(at(0.2), at(0.1)),
        control=(Misread(method=at(0.2)), Misread(method=at(0.1))),
        reference=MEAN_FLOW,
    )

    @pytest.fixture
    def method(self) -> AlphaFlow:
        return AlphaFlow(times=TIMES, alpha=Sigmoid(start=1.0, end=0.0, until=0.6))


class TestAlphaFlowAtItsEnd(MethodContract):
    """At alpha = 0; the control is the other end, which regresses the velocity for every t."""

    exactness = Exact(control=at(1.0))

    @pytest.fixture
    def method(self) -> AlphaFlow:
        return AlphaFlow(times=TIMES, alpha=Constant(value=0.0))


class TestAlphaFlowByItsOwnJump(MethodContract):
    """Two jumps of the exact map are its jump, at any alpha; the control takes Euler steps."""

    exactness = Exact(control=at(0.8))

    @pytest.fixture
    def method(self) -> AlphaFlow:
        return at(0.5, shift=Shift.JUMP)


def moment(n: int, *, step: int = 0) -> Moment:
    return Moment(step=step, total=1000, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, data: GaussianMap = ORACLE, labelled: bool = False) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def small_net() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


def gradient(loss: Tensor, net: FlowMap) -> Tensor:
    """Mean gradient; the labels of the small network have none."""
    parts = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def gradient_of(method: AlphaFlow | MeanFlow, net: FlowMap, n: int = 64) -> Tensor:
    return gradient(method.loss(Nets(online=net), pairs(n), moment(n)).total, net)


def distance(first: Tensor, second: Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


def literal(
    net: FlowMap,
    batch: Batch,
    *,
    alpha: float,
    times: AbstractTimes,
    velocity: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    clip: float = math.inf,
) -> Tensor:
    """The loss as the paper writes it, Eq. (8), with a given shift velocity of (x, s, m, v)."""
    n = len(batch)
    drawn = times.draw(n, moment(n), dtype=torch.float64)
    s, t = drawn.s, drawn.t
    x, v = AlphaFlow().path.at(batch.noise, batch.x1, s)
    m = s + alpha * (t - s)
    with torch.no_grad():
        w = torch.where(rows_like(s == t, x), v, velocity(x, s, m, v))
        target = alpha * w + (1.0 - alpha) * net(x + rows_like(m - s, x) * w, m, t)
        target = target.clamp(-clip, clip)
        # On the diagonal the network in the target is the prediction, which only scales the loss.
        target = torch.where(rows_like(s == t, x), v, target)
    scale = torch.where(s == t, torch.ones_like(s), torch.full_like(s, alpha))
    return (net(x, s, t) - target).square().sum(1) / scale


@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("shift", list(Shift))
def test_the_gradient_is_that_of_the_loss_in_the_paper(alpha: float, shift: Shift) -> None:
    net = small_net()

    def velocity(x: Tensor, s: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return v if shift is Shift.SAMPLE else net(x, s, m)

    want = gradient(literal(net, pairs(64), alpha=alpha, times=TIMES, velocity=velocity), net)
    assert distance(gradient_of(at(alpha, shift=shift), net), want) <= 1e-12


def test_the_loss_off_the_diagonal_is_that_of_the_paper_over_alpha() -> None:
    net, n = small_net(), 64
    got = at(0.3).loss(Nets(online=net), pairs(n), moment(n)).total
    want = literal(net, pairs(n), alpha=0.3, times=TIMES, velocity=lambda x, s, m, v: v)
    off = TIMES.draw(n, moment(n)).off_rows
    rest = TIMES.draw(n, moment(n)).diagonal_rows
    torch.testing.assert_close(got[off], want[off] / 0.3, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(got[rest], want[rest], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.9])
def test_the_jump_in_two_parts_is_clipped_as_in_the_paper(alpha: float) -> None:
    net, n = small_net(), 64
    method = replace(at(alpha), clip=0.4)
    got = gradient_of(method, net)
    want = [
        gradient(
            literal(net, pairs(n), alpha=alpha, times=TIMES, velocity=lambda *it: it[3], clip=clip),
            net,
        )
        for clip in (0.4, math.inf)
    ]
    assert distance(got, want[0]) <= 1e-12
    assert distance(got, want[1]) > 1e-3


def test_a_clip_that_is_never_reached_changes_no_bit() -> None:
    nets, n = Nets(online=small_net()), 64
    free = at(0.3).loss(nets, pairs(n), moment(n)).total
    assert torch.equal(replace(at(0.3), clip=1e3).loss(nets, pairs(n), moment(n)).total, free)
    with pytest.raises(ValueError, match=r"clip must be finite and positive, or null, got 0"):
        replace(at(0.3), clip=0.0)


# Limits.


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_gradient_goes_to_that_of_mean_flow_linearly(power: float) -> None:
    # With a smaller offset the rows of nearly no error, where the weight is steep, decide.
    net, weighting = small_net(), AdaptivePower(power=power, offset=0.1)
    want = gradient_of(replace(MEAN_FLOW, weighting=weighting), net)
    found = [
        distance(gradient_of(replace(at(alpha), clamp=1e-6, weighting=weighting), net), want)
        for alpha in (0.5, 0.1, 0.01, 0.001)
    ]
    assert found[0] <= 0.3
    assert found[1] / found[2] == pytest.approx(10.0, rel=0.2)
    assert found[2] / found[3] == pytest.approx(10.0, rel=0.02)


def test_the_weight_of_the_papers_code_does_not_go_to_that_of_mean_flow() -> None:
    """alpha / (error + c) of the undivided residual: the control of the test above."""
    net = small_net()
    want = gradient_of(replace(MEAN_FLOW, weighting=AdaptivePower(offset=0.001)), net)
    coded = replace(at(0.001), clamp=1e-6, weighting=AdaptivePower(offset=0.001 / 0.001**2))
    assert distance(gradient_of(coded, net), want) >= 0.5


def test_at_zero_it_is_mean_flow_bit_for_bit() -> None:
    nets, n = Nets(online=small_net()), 64
    got = at(0.0).loss(nets, pairs(n), moment(n))
    want = MEAN_FLOW.loss(nets, pairs(n), moment(n))
    assert torch.equal(got.total, want.total)
    assert torch.equal(gradient_of(at(0.0), nets.online), gradient_of(MEAN_FLOW, nets.online))


def test_at_one_every_jump_is_regressed_on_the_velocity_of_the_pair() -> None:
    n, batch, net = 64, pairs(64), small_net()
    loss = at(1.0).loss(Nets(online=net), batch, moment(n))
    times = TIMES.draw(n, moment(n), dtype=torch.float64)
    x, v = AlphaFlow().path.at(batch.noise, batch.x1, times.s)
    want = (net(x, times.s, times.t) - v).square().sum(1)
    torch.testing.assert_close(loss.total, want, atol=1e-12, rtol=1e-12)


def test_a_half_by_its_own_jump_is_the_two_halves_of_shortcut_models() -> None:
    """Theorem 1: theirs is half of the loss, which is half of ours in value, not in gradient."""
    net, n = small_net(), 64
    times = FixedTimes(s=0.2, t=0.9)
    method = at(0.5, times=times, shift=Shift.JUMP)
    got = method.loss(Nets(online=net), pairs(n), moment(n)).total
    drawn = times.draw(n, moment(n), dtype=torch.float64)
    s, t = drawn.s, drawn.t
    x, _ = method.path.at(pairs(n).noise, pairs(n).x1, s)
    tiles = EqualTiles(count=2).draw(n, moment(n), dtype=torch.float64)
    halves = tiled_velocity(net, x, s, t, None, tiles=tiles).detach()
    shortcut = (net(x, s, t) - halves).square().sum(1)
    torch.testing.assert_close(got, 4.0 * shortcut, atol=1e-12, rtol=1e-12)
    found, want = gradient(got, net), gradient(shortcut, net)
    torch.testing.assert_close(found, 2.0 * want, atol=1e-12, rtol=1e-12)


def test_a_batch_on_the_diagonal_is_flow_matching_at_every_alpha() -> None:
    n, batch, nets = 64, pairs(64), Nets(online=ORACLE)
    times = SortedTimes(law=Uniform(), diagonal=Constant(value=1.0))
    want = FlowMatching(times=DiagonalTimes(law=Uniform())).loss(nets, batch, moment(n)).total
    for alpha in (0.0, 0.3, 1.0):
        assert torch.equal(at(alpha, times=times).loss(nets, batch, moment(n)).total, want)


def test_own_jumps_of_the_oracle_leave_no_residual() -> None:
    for alpha in (0.05, 0.3, 0.5, 0.9):
        times = FixedTimes(s=0.1, t=0.8)
        method = at(alpha, times=times, shift=Shift.JUMP)
        assert method.loss(Nets(online=ORACLE), pairs(64), moment(64)).total.max() <= 1e-22


# The bias and the floor at the exact map.


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_the_loss_at_the_oracle_is_noise_plus_bias(alpha: float) -> None:
    """S_t^2 / S_m^2 times the variance of the velocity, plus the squared bias over alpha^2.

    The bias is that of the Euler step along the oracle's velocity. 200 000 samples, 4 standard
    errors; the variance of the velocity alone is 20 away.
    """
    n, std, mean, s, t = 200_000, 0.5, 0.7, 0.25, 0.75
    data = GaussianMap(mean=[mean], std=[std])
    batch, times = pairs(n, data=data), FixedTimes(s=s, t=t)
    loss = at(alpha, times=times).loss(Nets(online=data), batch, moment(n)).total.detach()
    m = s + alpha * (t - s)
    width_s, width_m, width_t = (((1 - r) ** 2 + (r * std) ** 2) ** 0.5 for r in (s, m, t))
    start, middle, end = (torch.full((n,), r, dtype=torch.float64) for r in (s, m, t))
    x, _ = at(alpha).path.at(batch.noise, batch.x1, start)
    v = data.velocity(x, start)
    euler = alpha * v + (1.0 - alpha) * data(x + (m - s) * v, middle, end)
    bias = (data(x, start, end) - euler).square().mean().item() / alpha**2
    noise = (width_t / width_m) ** 2 * std**2 / width_s**2
    error = (loss.std() / n**0.5).item()
    assert abs(loss.mean().item() - noise - bias) <= 4.0 * error
    assert abs(loss.mean().item() - std**2 / width_s**2) >= 20.0 * error


# The curriculum.


def sigmoid(**changes: float) -> AlphaFlow:
    return AlphaFlow(alpha=Sigmoid(start=1.0, end=0.0, snap=0.0, **changes))


def test_the_curriculum_is_a_half_in_the_middle_and_clamped_a_fifth_of_the_window_away() -> None:
    """0.995 and 0.005 are 21.2 % of the window from its middle, for a steepness of 25."""
    method = sigmoid(begin=0.2, until=0.8)
    share = {step: method.share(moment(1, step=step)) for step in range(1000)}
    assert share[500] == pytest.approx(0.5)
    reach = 0.6 * 0.2117
    pure = [step for step in share if share[step] == 1.0]
    mean_flow = [step for step in share if share[step] == 0.0]
    assert max(pure) == pytest.approx(1000 * (0.5 - reach), abs=1.0)
    assert min(mean_flow) == pytest.approx(1000 * (0.5 + reach), abs=1.0)
    assert all(0.005 <= share[step] <= 0.995 for step in share if 0.0 < share[step] < 1.0)
    assert all(share[step + 1] <= share[step] for step in range(999))


@pytest.mark.parametrize(
    ("schedule", "clamp", "want"),
    [
        (Constant(value=0.004), 0.005, 0.0),
        (Constant(value=0.005), 0.005, 0.005),
        (Constant(value=0.996), 0.005, 1.0),
        (Constant(value=0.02), 0.05, 0.0),
    ],
)
def test_the_clamp_holds_for_every_schedule(schedule: Schedule, clamp: float, want: float) -> None:
    assert AlphaFlow(alpha=schedule, clamp=clamp).share(moment(1)) == want


def test_a_curriculum_that_ends_at_the_clamp_never_takes_a_derivative() -> None:
    method = AlphaFlow(times=TIMES, alpha=Linear(start=1.0, end=0.005, until=0.5))
    net, n = ObservedMap(small_net()), 64
    method.loss(Nets(online=net), pairs(n), moment(n, step=999))
    (_, ahead) = net.calls
    # A derivative is taken at the state itself, a difference ahead of it.
    s = TIMES.draw(n, moment(n), dtype=torch.float64).s
    assert bool((ahead.s > s[:48]).all())


@pytest.mark.parametrize(
    ("alpha", "shift", "rows"),
    [
        (1.0, Shift.SAMPLE, []),
        (0.5, Shift.SAMPLE, [48]),
        (0.5, Shift.JUMP, [48, 48]),
        (0.0, Shift.SAMPLE, [48]),
    ],
)
def test_only_jumps_pay_for_more_than_the_prediction(
    alpha: float, shift: Shift, rows: list[int]
) -> None:
    n, net = 64, ObservedMap(small_net())
    at(alpha, shift=shift).loss(Nets(online=net), pairs(n), moment(n))
    assert net.rows == [n, *rows]


def test_the_jump_goes_on_from_an_euler_step_along_the_pair() -> None:
    n, net, batch = 64, ObservedMap(small_net()), pairs(64)
    at(0.3).loss(Nets(online=net), batch, moment(n))
    first, ahead = net.calls
    x, s, t = first.x[:48], first.s[:48], first.t[:48]
    step = rows_like(0.3 * (t - s), x) * (batch.x1 - batch.noise)[:48]
    torch.testing.assert_close(ahead.s, s + 0.3 * (t - s))
    assert torch.equal(ahead.t, t)
    torch.testing.assert_close(ahead.x, x + step)


def test_the_target_has_no_gradient() -> None:
    n, net = 8, small_net()
    x, v, u = (Rng.seeded(k).normal(n, 2, dtype=torch.float64) for k in (1, 2, 3))
    s, t = torch.full((n,), 0.2).double(), torch.full((n,), 0.7).double()
    for method in (at(0.0), at(0.5), at(0.5, shift=Shift.JUMP)):
        share = method.share(moment(n))
        target = method.target(net, x, s, t, None, v=v, u=u.requires_grad_(), alpha=share)
        assert not target.requires_grad


def test_the_difference_of_nearly_equal_values_is_taken_in_full_precision() -> None:
    """In bfloat16 it would be off by about 2^-9 / alpha, as the control is."""
    n = 64
    net, x = small_net().float(), Rng.seeded(1).normal(n, 2)
    s, t = torch.full((n,), 0.2), torch.full((n,), 0.7)
    method = at(0.01)
    u = net(x, s, t)
    want = method.target(net, x, s, t, None, v=x, u=u, alpha=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(x, s, t)
        got = method.target(net, x, s, t, None, v=x, u=rounded, alpha=0.01)
    assert torch.equal(got, want)
    assert (rounded - u).abs().max() / 0.01 >= 0.1


# Guidance, which is that of mean flow.

IGNORED = "ignore:method.guidance without label dropout:UserWarning"


@pytest.mark.filterwarnings(IGNORED)
def test_guidance_is_that_of_mean_flow() -> None:
    n, nets, batch = 64, Nets(online=small_net()), pairs(64, labelled=True)
    guidance = Guidance(omega=1.0, kappa=0.5, s_lo=0.3)
    for probability in (0.0, 0.5):
        dropout = LabelDropout(probability=probability)
        got = replace(at(0.0), guidance=guidance, label_dropout=dropout)
        want = replace(MEAN_FLOW, guidance=guidance, label_dropout=dropout)
        assert torch.equal(
            got.loss(nets, batch, moment(n)).total, want.loss(nets, batch, moment(n)).total
        )
        plain = replace(got, guidance=Guidance()).loss(nets, batch, moment(n)).total
        assert not torch.equal(plain, got.loss(nets, batch, moment(n)).total)


@pytest.mark.filterwarnings(IGNORED)
def test_the_guided_velocity_is_that_of_the_shift() -> None:
    n, net, batch = 64, ObservedMap(small_net()), pairs(64, labelled=True)
    none = LabelDropout(probability=0.0)
    method = replace(at(0.5), guidance=Guidance(omega=3.0), label_dropout=none)
    method.loss(Nets(online=net), batch, moment(n))
    null, prediction, ahead = net.calls
    assert null.label is not None
    assert bool((null.label == NULL_LABEL).all())
    v = batch.x1 - batch.noise
    unguided = net.flow_map.velocity(null.x, null.s, batch.condition.null())  # type: ignore[union-attr]
    guided = 3.0 * v - 2.0 * unguided
    half = rows_like(0.5 * (prediction.t - prediction.s)[:48], v)
    torch.testing.assert_close(ahead.x, prediction.x[:48] + half * guided[:48])


def test_guidance_without_labels_is_refused_and_without_dropout_warns() -> None:
    with pytest.warns(UserWarning, match="an unconditional velocity that the network never learns"):
        method = AlphaFlow(
            guidance=Guidance(omega=2.0), label_dropout=LabelDropout(probability=0.0)
        )
    with pytest.raises(ValueError, match="guidance needs labelled data, got data without labels"):
        method.loss(Nets(online=small_net()), pairs(8), moment(8))


# Refusals.


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_an_alpha_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"method\.alpha must stay in \[0, 1\]"):
        AlphaFlow(alpha=Linear(start=1.0, end=value))


@pytest.mark.parametrize("clamp", [0.0, 0.5, -0.1])
def test_a_clamp_outside_its_range_is_refused(clamp: float) -> None:
    with pytest.raises(ValueError, match=r"method\.clamp must lie in \(0, 0\.5\), got"):
        AlphaFlow(clamp=clamp)


def test_no_curriculum_cuts_off_before_the_clamp_does() -> None:
    method = AlphaFlow(alpha=Sigmoid(start=1.0, end=0.0), clamp=0.001)
    late = method.share(moment(8, step=730))
    assert late == pytest.approx(1.0 / (1.0 + math.exp(25.0 * 0.23)))
    assert 0.001 < late < 0.005


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_shift_by_the_jump_that_teaches_nothing_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"method\.alpha with shift jump must stay in"):
        AlphaFlow(alpha=Constant(value=alpha), shift=Shift.JUMP)


def test_guidance_by_a_velocity_that_is_never_trained_is_refused() -> None:
    times = SortedTimes(diagonal=Constant(value=0.0))
    AlphaFlow(times=times)
    with pytest.raises(ValueError, match=r"method\.guidance reads the network's own velocity"):
        AlphaFlow(times=times, guidance=Guidance(omega=2.0))
