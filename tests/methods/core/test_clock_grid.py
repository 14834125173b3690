"""Equal intervals of a diffusion's clock, as its own samplers take them."""

import pytest
import torch

from onestep.methods.core.clock_grid import ClockGrid
from onestep.methods.core.diffusion_clock import DiscreteClock, LinearRateClock

CLOCK = DiscreteClock()


def levels(times: tuple[float, ...]) -> list[float]:
    return (CLOCK.tau(torch.tensor(times, dtype=torch.float64)) * 1000).tolist()


def test_the_readings_lie_evenly_between_the_ends_of_a_range() -> None:
    times = ClockGrid(clock=CLOCK, steps=9).times(CLOCK.t_lo, CLOCK.t_hi)
    assert levels(times) == pytest.approx([1000, 889, 778, 667, 556, 445, 334, 223, 112, 1])
    assert (times[0], times[-1]) == (CLOCK.t_lo, CLOCK.t_hi)


def test_a_range_that_reaches_the_data_ends_at_reading_0() -> None:
    """The trailing steps of diffusers: every twentieth level from the last, then the data."""
    times = ClockGrid(clock=CLOCK, steps=50).times(CLOCK.t_lo, 1.0)
    assert levels(times)[:-1] == pytest.approx(list(range(1000, 0, -20)))
    assert times[-1] == 1.0


@pytest.mark.parametrize("clock", [CLOCK, LinearRateClock()])
def test_the_times_rise_on_any_range(clock: DiscreteClock | LinearRateClock) -> None:
    for ends in ((0.0, 1.0), (0.0, 0.998), (0.01, 0.9), (clock.t_lo, clock.t_hi)):
        times = torch.tensor(ClockGrid(clock=clock, steps=7).times(*ends))
        assert (times.diff() > 0.0).all()
        assert len(times) == 8


def test_a_grid_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid needs at least 1 step, got 0"):
        ClockGrid(steps=0)
