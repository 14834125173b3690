"""Pairs of neighbouring times: their laws, their grids and their ratios."""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from scipy import stats

from onestep.methods.core.pair_times import GridTimes, KarrasSpacing, RatioTimes, UniformSpacing
from onestep.methods.core.schedule import Constant, Doubling
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import AbstractTimes
from onestep.tests.methods.consistency import karras_times
from onestep.tests.methods.core.contract import LEAST_P, Cdf, TimesContract, moment

LAW = LogitNormal(mean=1.1, std=2.0)


class TestUniformPairs(TimesContract):
    off_share = 1.0
    atoms: ClassVar[dict[tuple[float, float], float]] = {
        (k / 4, (k + 1) / 4): 0.25 for k in range(4)
    }

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return GridTimes(spacing=UniformSpacing(), steps=Constant(value=4.0))


class TestPairsByALaw(TimesContract):
    off_share = 1.0
    atoms: ClassVar[dict[tuple[float, float], float]] = {
        (k / 4, (k + 1) / 4): chance
        for k, chance in enumerate(
            LAW.cdf(torch.linspace(0.0, 1.0, 5, dtype=torch.float64)).diff().tolist()
        )
    }

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return GridTimes(spacing=UniformSpacing(), steps=Constant(value=4.0), law=LAW)


class TestRatioTimes(TimesContract):
    off_share = 1.0
    laws: ClassVar[dict[str, Cdf]] = {"start": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return RatioTimes(law=LAW)


def test_pairs_on_a_karras_grid_are_neighbours_with_the_chances_of_their_law() -> None:
    """n = 20 000, 10 intervals, by chi-square; another law is refused."""
    times = GridTimes(steps=Constant(value=10.0), law=LAW)
    drawn = times.draw(20_000, moment(), dtype=torch.float64)
    knots = times.spacing.knots(10)
    intervals = list(pairwise(knots))
    counts = [int(((drawn.s == start) & (drawn.t == end)).sum()) for start, end in intervals]
    assert sum(counts) == 20_000
    for law, passes in ((LAW, True), (LogitNormal(mean=-1.1, std=2.0), False)):
        chances = GridTimes(law=law).chances(torch.tensor(knots, dtype=torch.float64))
        expected = (20_000 * chances).tolist()
        assert (stats.chisquare(counts, expected).pvalue > LEAST_P) == passes


def test_the_chances_of_eleven_points_are_those_of_the_card() -> None:
    """From small to large noise; the card's grid ends at level 0.002, ours at the data."""
    card = [
        *(0.06263, 0.18174, 0.24550, 0.21349, 0.14245),
        *(0.08060, 0.04108, 0.01958, 0.00894, 0.00398),
    ]
    want = torch.tensor(card, dtype=torch.float64)
    theirs = torch.tensor(karras_times(11), dtype=torch.float64)
    found = GridTimes(law=LAW).chances(theirs).flip(0)
    torch.testing.assert_close(found, want, atol=6e-6, rtol=0.0)
    knots = torch.tensor(KarrasSpacing().knots(10), dtype=torch.float64)
    found = GridTimes(law=LAW).chances(knots).flip(0)[1:]
    want = want[1:]
    torch.testing.assert_close(found / found.sum(), want / want.sum(), atol=1e-5, rtol=0.0)


def test_a_karras_grid_runs_from_noise_level_80_to_the_data() -> None:
    knots = KarrasSpacing().knots(17)
    assert len(knots) == 18
    assert knots[0] == 1.0 / 81.0
    assert knots[-1] == 1.0
    # Published values, with the level 0.002 of its last point replaced by 0.
    assert knots[1:3] == pytest.approx([0.017069, 0.023932], abs=1e-6)
    assert knots[-2] == pytest.approx(0.992528, abs=1e-6)


def test_the_number_of_steps_follows_its_schedule() -> None:
    times = GridTimes(spacing=UniformSpacing(), steps=Doubling(start=10, end=80))
    gaps = [times.draw(4, moment(step), dtype=torch.float64) for step in (0, 25, 50, 75)]
    assert [round(1.0 / float((g.t - g.s)[0])) for g in gaps] == [10, 20, 40, 80]


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        (4.0, [0.0, 0.0, 0.2121, 0.7366, 0.75]),
        (16.0, [0.7, 0.7487, 0.803, 0.9342, 0.9375]),
        (256.0, [0.9812, 0.9843, 0.9877, 0.9959, 0.9961]),
    ],
)
def test_ratios_are_those_of_the_card(parts: float, want: list[float]) -> None:
    """Stages 1, 3 and 7 of q = 2 at noise levels 0.1, 0.5, 1, 5 and 80; clamped at the data."""
    sigma = torch.tensor([0.1, 0.5, 1.0, 5.0, 80.0], dtype=torch.float64)
    found = RatioTimes(parts=Constant(value=parts)).ratio(sigma, moment())
    assert found.tolist() == pytest.approx(want, abs=1.1e-4)


def test_the_end_of_a_pair_has_the_ratio_of_its_noise_levels() -> None:
    times = RatioTimes(parts=Constant(value=4.0))
    drawn = times.draw(1024, moment(), dtype=torch.float64)
    sigma_s, sigma_t = (1.0 - drawn.s) / drawn.s, (1.0 - drawn.t) / drawn.t
    expected = times.ratio(sigma_s, moment()) * sigma_s
    torch.testing.assert_close(sigma_t, expected, atol=1e-12, rtol=1e-9)
    assert 0.2 < float((drawn.t == 1.0).double().mean()) < 0.8


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: KarrasSpacing(sigma_min=90.0), "0 < sigma_min < sigma_max"),
        (lambda: GridTimes(steps=Constant(value=0.5)), r"times.steps must stay in \[1, inf\]"),
        (lambda: RatioTimes(parts=Constant(value=0.5)), r"times.parts must stay in \[1, inf\]"),
        (lambda: RatioTimes(extra=-1.0), "extra >= 0 and sharpness > 0, got -1.0"),
        (lambda: RatioTimes(sharpness=0.0), "extra >= 0 and sharpness > 0, got 8.0 and 0.0"),
    ],
)
def test_times_that_make_no_sense_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
