"""Tilings of the exact map give its own velocity back, and those that do not cover are refused."""

import math
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.tiling import (
    AbstractTiling,
    EqualTiles,
    ListedTiles,
    RandomTiles,
    Tile,
    TwoTiles,
    tiled_velocity,
)
from onestep.methods.core.time_law import UShaped
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.observed import ObservedMap

N = 128
OVERLAPPING = ListedTiles(
    tiles=((0.0, 0.5, 0.25), (0.0, 0.75, 0.375), (0.5, 0.5, 0.25), (0.75, 0.25, 0.125))
)
WITH_A_GAP_BEHIND = ListedTiles(
    tiles=((0.0, 0.5, 0.25), (0.0, 0.25, 0.125), (0.25, 0.75, 0.375), (0.5, 0.5, 0.25))
)
TILINGS = [
    EqualTiles(count=2),
    EqualTiles(count=5),
    TwoTiles(split=2.0 / 3.0),
    RandomTiles(),
    RandomTiles(law=UShaped()),
    ListedTiles(),
    ListedTiles(tiles=((0.0, 2.0 / 3.0, 2.0 / 3.0), (2.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0))),
    OVERLAPPING,
    WITH_A_GAP_BEHIND,
]


def moment() -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=N)


def jumps() -> tuple[Tensor, Tensor, Tensor]:
    rng = Rng.seeded(3)
    s, t = rng.uniform(2 * N, dtype=torch.float64).reshape(2, N).sort(0).values
    return rng.normal(N, 2, dtype=torch.float64), s, t


def error(tiles: Sequence[Tile]) -> Tensor:
    x, s, t = jumps()
    found = tiled_velocity(ORACLE, x, s, t, None, tiles=tiles)
    return (found - ORACLE(x, s, t)).square().sum(1).sqrt()


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_the_tiles_of_the_exact_map_add_up_to_its_velocity(tiling: AbstractTiling) -> None:
    assert error(tiling.draw(N, moment(), dtype=torch.float64)).max() <= 1e-12


@pytest.mark.parametrize(
    ("nodes", "order"),
    [
        (((0.0, 0.5), (1.0, 0.5)), 2.0),
        (((0.5, 1.0),), 2.0),
        (((0.0, 0.25), (2.0 / 3.0, 0.75)), 3.0),
        (((0.5 - 12.0**-0.5, 0.5), (0.5 + 12.0**-0.5, 0.5)), 4.0),
    ],
    ids=["trapezoid", "midpoint", "two thirds", "Gauss"],
)
def test_tiles_without_a_length_are_a_rule_of_quadrature_and_never_exact(
    nodes: tuple[tuple[float, float], ...], order: float
) -> None:
    """What their refusal keeps away: errors of order 2, 2, 3 and 4 in the length of the jump."""
    x, _, _ = jumps()
    s = torch.full((N,), 0.3, dtype=torch.float64)

    def missed(length: float) -> float:
        tiles = []
        for at, weight in nodes:
            here = torch.full_like(s, at)
            share = torch.full_like(s, weight)
            tiles.append(Tile(here, here, share, after=None, is_first=at == 0.0))
        found = tiled_velocity(ORACLE, x, s, s + length, None, tiles=tiles)
        return (found - ORACLE(x, s, s + length)).square().mean().sqrt().item()

    errors = [missed(length) for length in (0.1, 0.05, 0.025)]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.2)
    assert min(errors) > 1e-10


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_weights_moved_between_tiles_add_up_to_something_else(tiling: AbstractTiling) -> None:
    first, *rest, last = tiling.draw(N, moment(), dtype=torch.float64)
    moved = [first._replace(weight=last.weight), *rest, last._replace(weight=first.weight)]
    if torch.allclose(first.weight, last.weight):
        moved[0] = first._replace(weight=first.weight + 0.2)
        moved[-1] = last._replace(weight=last.weight - 0.2)
    assert error(moved).square().mean().sqrt() >= 0.02


def test_the_long_weight_on_the_short_tile_is_off_by_a_third_of_the_velocity() -> None:
    long, short = TwoTiles().draw(N, moment(), dtype=torch.float64)
    x, _, _ = jumps()
    s, t = torch.zeros(N, dtype=torch.float64), torch.ones(N, dtype=torch.float64)
    swapped = (long._replace(weight=short.weight), short._replace(weight=long.weight))
    found = tiled_velocity(ORACLE, x, s, t, None, tiles=swapped)
    assert (found - ORACLE(x, s, t)).square().sum(1).mean().sqrt() >= 0.2


@pytest.mark.parametrize(
    ("tiling", "evaluations"),
    [
        (EqualTiles(count=2), 2),
        (EqualTiles(count=5), 5),
        (RandomTiles(), 2),
        (OVERLAPPING, 4),
        (ListedTiles(tiles=((0.0, 0.5, 0.5), (0.5, 0.25, 0.25), (0.75, 0.25, 0.25))), 3),
        # The tile from 0.25 starts where none has ended yet.
        (ListedTiles(tiles=((0.0, 0.75, 0.375), (0.0, 0.5, 0.25), (0.5, 0.5, 0.25),
                            (0.75, 0.25, 0.125))), 4),
    ],
    ids=str,
)  # fmt: skip
def test_a_tile_costs_one_evaluation_where_another_ends_before_it(
    tiling: AbstractTiling, evaluations: int
) -> None:
    net = ObservedMap(ORACLE)
    tiled_velocity(net, *jumps(), None, tiles=tiling.draw(N, moment(), dtype=torch.float64))
    assert len(net.calls) == evaluations


def test_a_tile_that_follows_none_is_reached_by_a_jump_of_its_own() -> None:
    x, s, t = jumps()
    net = ObservedMap(WRONG)
    numbers = ((0.0, 1.0, 0.5), (0.25, 1.0, 0.5))
    tiles = [
        Tile(
            *(torch.full((N,), k, dtype=torch.float64) for k in each),
            after=None,
            is_first=each[0] == 0.0,
        )
        for each in numbers
    ]
    tiled_velocity(net, x, s, t, None, tiles=tiles)
    _, way, last = net.calls
    assert torch.equal(way.s, s)
    assert torch.equal(way.t, last.s)
    torch.testing.assert_close(last.x, WRONG.jump(x, s, way.t), atol=1e-12, rtol=0.0)


def test_a_tile_starts_where_the_one_before_has_jumped_to() -> None:
    net = ObservedMap(WRONG)
    x, s, t = jumps()
    tiles = EqualTiles(count=3).draw(N, moment(), dtype=torch.float64)
    tiled_velocity(net, x, s, t, None, tiles=tiles)
    for before, after in zip(net.calls, net.calls[1:], strict=False):
        assert torch.equal(before.t, after.s)
        reached = WRONG.jump(before.x, before.s, before.t)
        torch.testing.assert_close(after.x, reached, atol=1e-12, rtol=0.0)
    assert torch.equal(net.calls[-1].t, t)


def test_a_random_split_differs_from_row_to_row_and_by_moment_alone() -> None:
    first, second = RandomTiles().draw(N, moment(), dtype=torch.float64)
    assert len(first.weight.unique()) == N
    assert torch.equal(first.weight + second.weight, torch.ones(N, dtype=torch.float64))
    again = RandomTiles().draw(N, moment(), dtype=torch.float64)
    assert torch.equal(again[0].end, first.end)


@pytest.mark.parametrize(
    ("tiles", "said"),
    [
        (((0.0, 2 / 3, 1 / 3), (2 / 3, 1 / 3, 2 / 3)), "got 0.5 from 0 to 0.666667"),
        (((0.0, 0.5, 0.5),), "got 0 from 0.5 to 1"),
        (((0.0, 0.5, 0.5), (0.25, 0.75, 0.5)), "got 1.66667 from 0.25 to 0.5"),
        (((0.0, 0.5, 0.5), (0.5, 0.5, 0.4)), "got 0.8 from 0.5 to 1"),
        ((), "got 0 from 0 to 1"),
        (((0.0, 0.5, 0.5), (0.5, 0.6, 0.5)), "got start 0.5 and length 0.6"),
        (((-0.1, 0.5, 0.5), (0.5, 0.5, 0.5)), "got start -0.1"),
        (((0.0, 1.0, 1.0),), "got start 0 and length 1"),
        (((0.0, 0.0, 0.5), (1.0, 0.0, 0.5)), "got start 0 and length 0"),
        (((0.5, 0.5, 0.5), (0.0, 0.5, 0.5)), "in order of their starts"),
    ],
)
def test_tiles_that_do_not_cover_the_jump_once_are_refused(
    tiles: tuple[tuple[float, float, float], ...], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ListedTiles(tiles=tiles)


@pytest.mark.parametrize("count", [1, 0])
def test_one_tile_is_no_tiling(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 equal tiles, got {count}"):
        EqualTiles(count=count)


@pytest.mark.parametrize("split", [0.0, 1.0])
def test_a_split_at_an_end_is_refused(split: float) -> None:
    with pytest.raises(ValueError, match=r"split inside \(0, 1\)"):
        TwoTiles(split=split)


@pytest.mark.parametrize(
    ("tiling", "is_dyadic"),
    [
        (EqualTiles(count=4), True),
        (EqualTiles(count=3), False),
        (TwoTiles(split=0.5), True),
        (TwoTiles(split=0.25), False),
        (RandomTiles(), False),
        (ListedTiles(tiles=((0.0, 0.5, 0.5), (0.5, 0.25, 0.25), (0.75, 0.25, 0.25))), True),
        (ListedTiles(tiles=((0.0, 0.25, 0.25), (0.25, 0.5, 0.5), (0.75, 0.25, 0.25))), False),
    ],
    ids=str,
)
def test_a_tiling_knows_whether_dyadic_jumps_stay_dyadic(
    tiling: AbstractTiling, is_dyadic: bool
) -> None:
    assert tiling.is_dyadic is is_dyadic
