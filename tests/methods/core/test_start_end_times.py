"""The law of (s, t) with two laws keeps the contract of times."""

from typing import ClassVar

import pytest
import torch

from onestep.methods.core.schedule import Linear
from onestep.methods.core.start_end_times import StartEndTimes
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import AbstractTimes
from onestep.tests.methods.core.contract import Cdf, TimesContract, moment

START, END = LogitNormal(mean=0.6, std=1.6), LogitNormal(mean=4.0, std=1.6)


class TestStartEndTimes(TimesContract):
    """The defaults are those of MeanFlow's code for CIFAR-10; the end is moved where it must."""

    off_share = 0.75
    laws: ClassVar[dict[str, Cdf]] = {
        "start": START.cdf,
        "end": lambda t: START.cdf(t) * END.cdf(t),
        "diagonal": START.cdf,
    }

    @pytest.fixture
    def times(self) -> AbstractTimes:
        return StartEndTimes()

    def test_half_of_the_jumps_end_after_the_time_of_the_code(self, times: AbstractTimes) -> None:
        """65536 rows off the diagonal: the median has a standard error of 1.2e-4."""
        drawn = times.draw(4 * 2**16 // 3, moment(), dtype=torch.float64)
        median = drawn.t[drawn.off_rows].median().item()
        assert round(median, 2) == 0.98

    def test_a_share_outside_the_unit_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"times.diagonal must stay in \[0, 1\], got 1.2"):
            StartEndTimes(diagonal=Linear(start=0.2, end=1.2))
