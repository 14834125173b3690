"""Shortcut models: their ladder of jumps, its tiles, teacher, anchor and row counts."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Piecewise
from onestep.methods.core.tiling import (
    AbstractTiling,
    EqualTiles,
    ListedTiles,
    RandomTiles,
    TwoTiles,
    tiled_velocity,
)
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import (
    AbstractTimes,
    DiagonalTimes,
    DyadicTimes,
    FromNoiseTimes,
    SortedTimes,
    ToDataTimes,
)
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureMap1d
from onestep.methods.shortcut import Shortcut
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.misweighted import MisweightedTiles
from onestep.tests.methods.observed import AffineMap, ObservedMap

LEVELS = (1, 2, 4, 8, 16, 32, 64)
HALF = DyadicTimes(diagonal=Constant(value=0.5))
EIGHTH = Shortcut(times=DyadicTimes(diagonal=Constant(value=0.875)))


def misweighted(times: DyadicTimes | SortedTimes, tiling: AbstractTiling) -> Shortcut:
    """Jumps that are not what their parts make, after the diagonal, whose noise would hide it."""
    velocity_first = Piecewise(values=(1.0, 0.0), boundaries=(0.25,))
    jumps = replace(times, diagonal=velocity_first)
    return Shortcut(times=jumps, tiling=MisweightedTiles(tiling=tiling))


class TestShortcut(MethodContract):
    jumps_keep_labels = True
    exactness = Exact(control=misweighted(HALF, EqualTiles(count=2)))

    @pytest.fixture
    def method(self) -> Shortcut:
        return Shortcut(times=HALF)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, data: GaussianMap = ORACLE, labelled: bool = False) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def losses(method: Shortcut, online: FlowMap, target: FlowMap, batch: Batch) -> Tensor:
    nets = Nets(online=online, target=target)
    return method.loss(nets, batch, moment(len(batch))).total.detach()


def mixture() -> MixtureMap1d:
    return MixtureMap1d(weights=[0.3, 0.7], means=[-1.5, 1.0], stds=[0.3, 0.6])


@pytest.mark.parametrize("count", LEVELS)
@pytest.mark.parametrize("oracle", [ORACLE, mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("tiling", [EqualTiles(count=2), EqualTiles(count=4)], ids=str)
def test_the_tiles_of_the_oracle_are_the_whole_on_every_level(
    tiling: AbstractTiling, oracle: FlowMap, count: int
) -> None:
    x = Rng.seeded(3).normal(128, 2, dtype=torch.float64).clamp(-2.0, 2.0)
    s = (torch.arange(128) % count).double() / count
    t = s + 1.0 / count
    tiles = tiling.draw(128, moment(128), dtype=torch.float64)
    found = tiled_velocity(oracle, x, s, t, None, tiles=tiles)
    # Divided differences of the quantile map lose a digit or two on the shortest jumps.
    limit = 1e-12 if isinstance(oracle, GaussianMap) else 1e-9
    torch.testing.assert_close(found, oracle(x, s, t), atol=limit, rtol=limit)


def test_jumps_of_the_oracle_have_no_loss_and_other_rows_the_floor() -> None:
    """pi c / 2 for each coordinate on the diagonal; 200 000 samples, 4 standard errors."""
    n = 200_000
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6])
    method = replace(Shortcut(), clip=1e6)
    times = method.times.draw(n, moment(n), dtype=torch.float64)
    found = losses(method, data, data, pairs(n, data=data))
    assert found[times.off_rows].max() <= 1e-24
    diagonal = found[times.diagonal_rows]
    error = (diagonal.std() / len(diagonal) ** 0.5).item()
    assert abs(diagonal.mean().item() - math.pi * 0.9 / 2.0) <= 4.0 * error


def test_a_batch_of_256_teaches_four_rows_a_level_and_four_more_the_whole_jump() -> None:
    times = EIGHTH.times.draw(256, moment(256), dtype=torch.float64)
    assert len(times.off_rows) == 32
    length = (times.t - times.s)[times.off_rows]
    rows = {count: int((length == 1.0 / count).sum()) for count in LEVELS}
    assert rows == {1: 8, 2: 4, 4: 4, 8: 4, 16: 4, 32: 4, 64: 4}
    assert torch.equal(times.s[times.diagonal_rows], times.t[times.diagonal_rows])


def test_the_teacher_sees_the_jumps_alone_and_twice() -> None:
    online, target = ObservedMap(ORACLE), ObservedMap(ORACLE)
    losses(EIGHTH, online, target, pairs(256))
    assert online.rows == [256]
    assert target.rows == [32, 32]
    first, second = target.calls
    assert torch.equal(first.t, second.s)
    torch.testing.assert_close(first.t - first.s, second.t - second.s, atol=1e-12, rtol=0.0)


def test_the_second_half_starts_where_the_teacher_has_jumped_to() -> None:
    target = ObservedMap(WRONG)
    losses(replace(EIGHTH, clip=1e6), ORACLE, target, pairs(256))
    first, second = target.calls
    torch.testing.assert_close(second.x, WRONG.jump(first.x, first.s, first.t))


def test_the_moving_average_teaches_and_not_the_network_itself() -> None:
    method = replace(EIGHTH, clip=1e6)
    off = method.times.draw(256, moment(256)).off_rows
    rest = method.times.draw(256, moment(256)).diagonal_rows
    own = losses(method, ORACLE, ORACLE, pairs(256))
    other = losses(method, ORACLE, WRONG, pairs(256))
    assert own[off].max() <= 1e-24
    assert other[off].min() > 0.0
    assert torch.equal(own[rest], other[rest])


def test_a_batch_on_the_diagonal_is_flow_matching() -> None:
    law = Uniform()
    target = ObservedMap(ORACLE)
    method = Shortcut(times=DyadicTimes(diagonal=Constant(value=1.0), law=law))
    got = losses(method, ORACLE, target, pairs(64))
    assert not target.calls
    # The law of the jumps takes one draw of its own before that of the diagonal.
    now = moment(64)
    now.rng.uniform(64, dtype=torch.float64)
    flow_matching = FlowMatching(times=DiagonalTimes(law=law))
    assert torch.equal(got, flow_matching.loss(Nets(online=ORACLE), pairs(64), now).total)


def test_states_and_targets_are_clipped() -> None:
    far = GaussianMap(mean=[50.0, -50.0], std=1.0)
    target = ObservedMap(far)
    method = replace(EIGHTH, clip=2.0)
    zero = Velocity(AffineMap(ORACLE, size=2))
    found = losses(method, zero, target, pairs(256))
    off = method.times.draw(256, moment(256)).off_rows
    assert target.calls[1].x.abs().max() == 2.0
    # The online map is zero: the loss of a jump is the square of its target, whose numbers are 2.
    assert found[off].max() == 8.0
    unclipped = losses(replace(EIGHTH, clip=1e6), zero, target, pairs(256))
    assert unclipped[off].max() > 100.0


def test_a_clip_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.clip must be finite and positive, got 0"):
        Shortcut(clip=0.0)


def test_jumps_keep_their_label_and_the_diagonal_loses_it() -> None:
    online, target = ObservedMap(ORACLE), ObservedMap(ORACLE)
    batch = pairs(256, labelled=True)
    method = replace(EIGHTH, label_dropout=LabelDropout(probability=1.0))
    losses(method, online, target, batch)
    times = method.times.draw(256, moment(256))
    seen = online.calls[0].label
    assert seen is not None
    assert batch.condition is not None
    assert batch.condition.label is not None
    assert torch.equal(seen[times.off_rows], batch.condition.label[times.off_rows])
    assert bool((seen[times.diagonal_rows] == NULL_LABEL).all())
    for call in target.calls:
        assert call.label is not None
        assert torch.equal(call.label, batch.condition.label[times.off_rows])


# Other tilings, and jumps of any length.


CONTINUOUS = SortedTimes(law=Uniform(), diagonal=Constant(value=0.5))


class TestContinuousShortcut(MethodContract):
    jumps_keep_labels = True
    exactness = Exact(control=misweighted(CONTINUOUS, TwoTiles(split=2.0 / 3.0)))

    @pytest.fixture
    def method(self) -> Shortcut:
        return Shortcut(times=CONTINUOUS, tiling=TwoTiles(split=2.0 / 3.0))


class TestRandomShortcut(MethodContract):
    jumps_keep_labels = True
    exactness = Exact(control=misweighted(CONTINUOUS, RandomTiles()))

    @pytest.fixture
    def method(self) -> Shortcut:
        return Shortcut(times=CONTINUOUS, tiling=RandomTiles())


@pytest.mark.parametrize(
    "tiling", [EqualTiles(count=3), TwoTiles(), RandomTiles(), ListedTiles()], ids=str
)
def test_every_tiling_is_exact_on_jumps_of_every_length(tiling: AbstractTiling) -> None:
    method = Shortcut(times=CONTINUOUS, tiling=tiling, clip=1e6)
    off = method.times.draw(256, moment(256)).off_rows
    assert losses(method, ORACLE, ORACLE, pairs(256))[off].max() <= 1e-24


def test_dyadic_jumps_are_sampled_on_their_grid_and_others_anywhere() -> None:
    assert Shortcut().domain == Domain(kind=DomainKind.GRID, steps=64)
    assert Shortcut(times=CONTINUOUS).domain == Domain(kind=DomainKind.TRIANGLE)


@pytest.mark.parametrize("tiling", [TwoTiles(), RandomTiles(), EqualTiles(count=3)], ids=str)
def test_tiles_that_leave_the_dyadic_grid_are_refused(tiling: AbstractTiling) -> None:
    with pytest.raises(ValueError, match="DyadicTimes need tiles of length 2"):
        Shortcut(tiling=tiling)


@pytest.mark.parametrize("times", [FromNoiseTimes(), ToDataTimes()], ids=str)
def test_times_whose_jumps_have_parts_that_are_not_taught_are_refused(
    times: AbstractTimes,
) -> None:
    with pytest.raises(ValueError, match=f"got {type(times).__name__}"):
        Shortcut(times=times)


def test_a_path_without_a_velocity_at_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="got VariancePreservingPath"):
        Shortcut(path=VariancePreservingPath())
