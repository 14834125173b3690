"""Laws in which the length of a jump is drawn or scheduled by itself."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from onestep.methods.core.gap_times import GapTimes, ShortenedTimes
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.time_law import LogitNormal, Uniform
from onestep.methods.core.times import AbstractTimes, SortedTimes, ToDataTimes
from onestep.tests.methods.core.contract import LEAST_P, Cdf, TimesContract, ks, moment

GAP = LogitNormal(mean=-0.8, std=1.0)
END = LogitNormal(mean=0.4, std=1.0)
_LENGTHS = torch.sigmoid(
    -0.8 + torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
)


def end_given_length(t: Tensor, gap: Tensor) -> Tensor:
    """Law of the end time, cut off below the length."""
    below = END.cdf(gap)
    return ((END.cdf(t) - below) / (1.0 - below)).clamp(min=0.0)


def end(t: Tensor) -> Tensor:
    """Law of the end time over all lengths, by quadrature over their quantiles."""
    return end_given_length(t[:, None], _LENGTHS).mean(1)


def start(s: Tensor) -> Tensor:
    """Law of the start time, likewise."""
    t = (s[:, None] + _LENGTHS).clamp(max=1.0)
    return end_given_length(t, _LENGTHS).mean(1)


class TestGapTimes(TimesContract):
    off_share = 0.75
    laws: ClassVar[dict[str, Cdf]] = {"start": start, "end": end, "diagonal": END.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return GapTimes(gap=GAP, end=END, diagonal=Constant(value=0.25))

    def test_the_length_follows_its_law(self, times: AbstractTimes) -> None:
        drawn = times.draw(8192, moment(), dtype=torch.float64)
        off = drawn.off_rows
        assert ks((drawn.t - drawn.s)[off], GAP.cdf) > LEAST_P
        assert ks((drawn.t - drawn.s)[off] ** 1.2, GAP.cdf) < LEAST_P

    def test_a_length_near_the_whole_interval_keeps_its_order_in_float32(self) -> None:
        drawn = GapTimes(gap=LogitNormal(mean=8.0, std=2.0)).draw(4096, moment())
        assert bool((drawn.s >= 0.0).all())
        assert bool((drawn.t <= 1.0).all())
        assert bool((drawn.s < drawn.t).all())
        assert bool(drawn.t.isfinite().all())

    def test_a_share_outside_the_unit_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"times.diagonal must stay in \[0, 1\], got -0.5"):
            GapTimes(diagonal=Constant(value=-0.5))


def smaller(t: Tensor) -> Tensor:
    return 1.0 - (1.0 - t) ** 2


def end_of_short(t: Tensor) -> Tensor:
    """Law of (s + t) / 2 for two sorted uniform times: a triangle, as their mean does not care."""
    return torch.where(t < 0.5, 2.0 * t**2, 1.0 - 2.0 * (1.0 - t) ** 2)


class TestShortenedTimes(TimesContract):
    off_share = 0.25
    laws: ClassVar[dict[str, Cdf]] = {
        "start": smaller,
        "end": end_of_short,
        "diagonal": Uniform().cdf,
    }

    @pytest.fixture
    def times(self) -> AbstractTimes:
        whole = SortedTimes(law=Uniform(), diagonal=Constant(value=0.75))
        return ShortenedTimes(times=whole, reach=Constant(value=0.5))

    def test_the_mean_length_is_the_share_of_a_third(self, times: AbstractTimes) -> None:
        """8 192 / 4 rows, variance 1 / 18 of the whole length, 4 standard errors."""
        drawn = times.draw(8192, moment(), dtype=torch.float64)
        length = (drawn.t - drawn.s)[drawn.off_rows]
        assert abs(length.mean().item() - 1.0 / 6.0) <= 4.0 * 0.5 * (1 / 18 / 2048) ** 0.5

    def test_the_reach_grows_with_its_schedule(self) -> None:
        times = ShortenedTimes(times=ToDataTimes(), reach=Linear(start=0.0, end=1.0))
        for step in (0, 25, 50, 100):
            drawn = times.draw(64, moment(step), dtype=torch.float64)
            whole = ToDataTimes().draw(64, moment(step), dtype=torch.float64)
            share = (drawn.t - drawn.s) / (1.0 - whole.s)
            reach = torch.full_like(share, step / 100)
            torch.testing.assert_close(share, reach, atol=1e-9, rtol=0.0)

    def test_a_reach_outside_the_unit_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"times.reach must stay in \[0, 1\], got 1.5"):
            ShortenedTimes(reach=Constant(value=1.5))
