import pytest

from onestep.serving.pace import Forecast, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pace(**seconds: float) -> Pace:
    found = Pace((1, 2, 4))
    for bucket, taken in seconds.items():
        found.note(int(bucket[1:]), taken)
    return found


def forecast(rows: int, *ahead: tuple[int, int], running_s: float = 0.0) -> Forecast:
    of_rows = pace(_1=1.0, _2=1.5, _4=2.0)
    return Forecast(rows, most=8, ahead=ahead, bucket=4, pace=of_rows, running_s=running_s)


def test_the_median_of_the_last_nine_counts() -> None:
    found = pace()
    for seconds in [100.0] * 20 + [1.0] * 4 + [50.0, 60.0, 70.0, 80.0]:
        found.note(2, seconds)
    assert found.seconds(2) == 50.0
    found.note(2, 1.0)
    assert found.seconds(2) == 1.0


@pytest.mark.parametrize(
    ("known", "rows", "seconds"),
    [({}, 3, 0.0), ({"_4": 2.0}, 1, 2.0), ({"_1": 1.0, "_4": 8.0}, 2, 8.0), ({"_1": 1.0}, 3, 4.0)],
)
def test_what_has_not_run_is_taken_from_its_neighbours(
    known: dict[str, float], rows: int, seconds: float
) -> None:
    assert pace(**known).seconds(rows) == seconds


def test_what_was_measured_long_ago_is_not_fresh() -> None:
    clock = Clock()
    found = Pace((1,), clock=clock)
    assert not found.is_fresh
    found.note(1, 0.1)
    clock.now = 9.9
    assert found.is_fresh
    clock.now = 10.1
    assert not found.is_fresh


def test_three_forwards_of_the_bucket_that_tells_make_a_pace_sure() -> None:
    found = pace(_4=1.0)
    assert not found.is_sure(1)
    found.note(4, 1.0)
    found.note(4, 1.0)
    assert found.is_sure(1)
    found.note(1, 0.1)
    assert not found.is_sure(1)
    assert found.is_sure(4)


@pytest.mark.parametrize(
    ("rows", "steps", "ahead", "seconds"),
    [
        (1, 1, [], 1.0),
        (3, 2, [], 4.0),
        (9, 1, [], 5.0),  # 4 + 4 + 1 rows
        (1, 3, [(1, 1)], 1.5 + 1.0 + 1.0),
        (1, 1, [(3, 8), (4, 1)], 4.0),
        (1, 2, [(3, 8), (4, 1)], 4.0 + 2.0),
        (1, 8, [(3, 64)], 8 * 2.0),
    ],
)
def test_requests_take_turns_until_their_end(
    rows: int, steps: int, ahead: list[tuple[int, int]], seconds: float
) -> None:
    assert forecast(rows, *ahead).seconds(steps) == seconds
    assert forecast(rows, *ahead, running_s=0.25).seconds(steps) == seconds + 0.25


def test_the_queue_is_counted_in_full_forwards() -> None:
    assert forecast(1, (3, 8), (4, 1)).forwards_ahead == 7.0
