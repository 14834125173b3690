"""Every law of (s, t) keeps the contract of times."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.time_law import AbstractTimeLaw, LogitNormal, Uniform, UShaped
from onestep.methods.core.times import (
    AbstractTimes,
    DiagonalTimes,
    DyadicTimes,
    FromNoiseTimes,
    SortedTimes,
    TilingTimes,
    ToDataTimes,
)
from onestep.tests.methods.core.contract import LEAST_P, Cdf, TimesContract, ks, moment

LAW = LogitNormal(mean=0.4, std=1.0)


def smaller(t: Tensor) -> Tensor:
    """Law of the smaller of two independent times."""
    return 1.0 - (1.0 - LAW.cdf(t)) ** 2


def larger(t: Tensor) -> Tensor:
    """Law of the larger of two independent times."""
    return LAW.cdf(t) ** 2


class TestDiagonalTimes(TimesContract):
    off_share = 0.0
    laws: ClassVar[dict[str, Cdf]] = {"diagonal": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return DiagonalTimes(law=LAW)


class TestSortedTimes(TimesContract):
    """The diagonal follows the law itself, not that of a minimum."""

    off_share = 0.25
    laws: ClassVar[dict[str, Cdf]] = {"start": smaller, "end": larger, "diagonal": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return SortedTimes(law=LAW, diagonal=Constant(value=0.75))

    def test_a_diagonal_of_minima_would_be_noticed(self, times: AbstractTimes) -> None:
        drawn = times.draw(4096, moment(), dtype=torch.float64)
        assert ks(drawn.s[drawn.diagonal_rows], smaller) < LEAST_P

    def test_the_share_on_the_diagonal_follows_its_schedule(self) -> None:
        times = SortedTimes(diagonal=Linear(start=1.0, end=0.0))
        counts = [len(times.draw(64, moment(step)).off_rows) for step in (0, 25, 50, 75)]
        assert counts == [0, 16, 32, 48]

    def test_a_share_outside_the_unit_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"times.diagonal must stay in \[0, 1\], got 1.2"):
            SortedTimes(diagonal=Linear(start=0.2, end=1.2))


class TestToDataTimes(TimesContract):
    off_share = 1.0
    laws: ClassVar[dict[str, Cdf]] = {"start": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return ToDataTimes(law=LAW)

    def test_every_jump_ends_at_data(self, times: AbstractTimes) -> None:
        assert torch.equal(times.draw(8, moment()).t, torch.ones(8))


class TestFromNoiseTimes(TimesContract):
    off_share = 1.0
    laws: ClassVar[dict[str, Cdf]] = {"end": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return FromNoiseTimes(law=LAW)

    def test_every_jump_begins_at_noise(self, times: AbstractTimes) -> None:
        assert torch.equal(times.draw(8, moment()).s, torch.zeros(8))


class TestWholeJumps(TimesContract):
    off_share = 1.0
    atoms: ClassVar[dict[tuple[float, float], float]] = {(0.0, 1.0): 1.0}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return FromNoiseTimes()


class TestTilingTimes(TimesContract):
    """Any number of jumps, not only powers of two."""

    off_share = 1.0
    atoms: ClassVar[dict[tuple[float, float], float]] = {
        (k / 5, (k + 1) / 5): 1.0 / 5 for k in range(5)
    }

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return TilingTimes(steps=5)

    def test_a_tiling_without_a_jump_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"times\.steps must be at least 1, got 0"):
            TilingTimes(steps=0)


class TestDyadicTimes(TimesContract):
    off_share = 0.375
    atoms: ClassVar[dict[tuple[float, float], float]] = {
        (k / count, (k + 1) / count): 1.0 / (3 * count) for count in (1, 2, 4) for k in range(count)
    }

    laws: ClassVar[dict[str, Cdf]] = {"diagonal": LAW.cdf}

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return DyadicTimes(steps=4, diagonal=Constant(value=0.625), law=LAW)

    def test_a_batch_of_256_has_the_rows_of_the_paper(self) -> None:
        """32 rows off the diagonal in 7 lengths: 4 of each, the 4 left over of length 1."""
        times = DyadicTimes(steps=64, diagonal=Constant(value=0.875))
        drawn = times.draw(256, moment())
        lengths = (drawn.t - drawn.s)[drawn.off_rows]
        counts = {k: int((lengths == 2.0**-k).sum()) for k in range(7)}
        assert counts == {0: 8, 1: 4, 2: 4, 3: 4, 4: 4, 5: 4, 6: 4}

    @pytest.mark.parametrize("off", [1, 2, 4, 6])
    def test_fewer_rows_than_lengths_teach_each_length_equally_often(self, off: int) -> None:
        """7000 shards, off of 7 lengths each: a count deviates by at most 4 standard errors."""
        times, shards = DyadicTimes(steps=64, diagonal=Constant(value=1.0 - off / 16)), 7000
        now = Moment(step=0, total=1, rng=Rng.seeded(0, shards=range(shards)))
        drawn = times.draw(16 * shards, now)
        lengths = (drawn.t - drawn.s)[drawn.off_rows].reshape(shards, off)
        assert all(len(row.unique()) == off for row in lengths[:100])
        counts = [int((lengths == 2.0**-k).sum()) for k in range(7)]
        chance = off / 7
        assert sum(counts) == off * shards
        allowed = 4.0 * (shards * chance * (1.0 - chance)) ** 0.5
        assert counts == pytest.approx([1000 * off] * 7, abs=allowed)

    def test_the_lengths_of_few_rows_belong_to_the_moment_and_the_shard(self) -> None:
        def lengths(step: int, *shards: int) -> Tensor:
            now = Moment(step=step, total=9, rng=Rng.seeded(5, step=step, shards=shards))
            drawn = DyadicTimes().draw(16 * len(shards), now)
            return (drawn.t - drawn.s)[drawn.off_rows]

        whole = lengths(3, 0, 1, 2, 3)
        assert torch.equal(whole, lengths(3, 0, 1, 2, 3))
        assert torch.equal(whole, torch.cat([lengths(3, 0), lengths(3, 1, 2), lengths(3, 3)]))
        assert len({tuple(lengths(step, 0).tolist()) for step in range(9)}) > 1

    @pytest.mark.parametrize("steps", [0, -2, 12])
    def test_a_grid_that_is_no_power_of_two_is_refused(self, steps: int) -> None:
        with pytest.raises(ValueError, match=f"must be a power of two, got {steps}"):
            DyadicTimes(steps=steps)


@pytest.mark.parametrize(
    "law", [Uniform(), LAW, LogitNormal(mean=1.2, std=1.2), UShaped(), UShaped(a=1.0)], ids=repr
)
def test_a_time_follows_its_own_distribution_function(law: AbstractTimeLaw) -> None:
    """n = 20 000 by Kolmogorov and Smirnov; times that are moved a little fail."""
    sample = law.draw(20_000, moment().rng, dtype=torch.float64)
    assert ks(sample, law.cdf) > LEAST_P
    assert ks(sample**1.1, law.cdf) < LEAST_P
    ends = law.cdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_u_shaped_times_have_the_numbers_of_the_card() -> None:
    """T12, a = 4: quantiles, mass of the outer fifth, variance; and the ratio of end to middle."""
    quantiles = torch.tensor([0.00487, 0.02529, 0.05329, 0.16076, 0.5], dtype=torch.float64)
    chances = torch.tensor([0.01, 0.05, 0.1, 0.25, 0.5], dtype=torch.float64)
    torch.testing.assert_close(UShaped().cdf(quantiles), chances, atol=2e-5, rtol=0.0)
    assert 2.0 * UShaped().cdf(torch.tensor(0.1).double()).item() == pytest.approx(0.3450, abs=5e-5)
    drawn = UShaped().draw(100_000, moment().rng, dtype=torch.float64)
    assert drawn.var().item() == pytest.approx(0.1157, abs=4.0 * 0.1 / 100_000**0.5)
    h = 1e-6
    ends = torch.tensor([0.0, h, 0.5 - h / 2.0, 0.5 + h / 2.0], dtype=torch.float64)
    for a, want in ((1.0, 1.13), (2.0, 1.54), (4.0, 3.762), (6.0, 10.07), (8.0, 27.3)):
        cdf = UShaped(a=a).cdf(ends)
        assert ((cdf[1] - cdf[0]) / (cdf[3] - cdf[2])).item() == pytest.approx(want, rel=3e-3)


def test_u_shaped_times_without_a_shape_are_uniform() -> None:
    same = [law.draw(64, moment().rng, dtype=torch.float64) for law in (UShaped(a=1e-4), Uniform())]
    torch.testing.assert_close(same[0], same[1], atol=1e-9, rtol=0.0)


@pytest.mark.parametrize("a", [4.0, 200.0, 1400.0])
def test_u_shaped_times_have_their_law_in_single_precision(a: float) -> None:
    """n = 20 000 by Kolmogorov and Smirnov."""
    law = UShaped(a=a)
    sample = law.draw(20_000, moment().rng, dtype=torch.float32)
    assert ks(sample.double(), law.cdf) > LEAST_P
    assert law.cdf(sample).dtype == torch.float32
    torch.testing.assert_close(law.cdf(sample).double(), law.cdf(sample.double()))


def test_u_shaped_times_favour_both_ends_alike() -> None:
    cdf = UShaped(a=4.0).cdf(torch.tensor([0.1, 0.45, 0.55, 0.9], dtype=torch.float64))
    assert cdf[0] > 2.0 * (cdf[2] - cdf[1])
    torch.testing.assert_close(cdf[0], 1.0 - cdf[3])


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (lambda: LogitNormal(std=0.0), "std above 0, got 0.0"),
        (lambda: UShaped(a=-1.0), "a above 0 and at most 1400, got -1.0"),
        (lambda: UShaped(a=1401.0), "a above 0 and at most 1400, got 1401.0"),
    ],
)
def test_a_law_that_makes_no_sense_is_refused(law: type, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        law()
