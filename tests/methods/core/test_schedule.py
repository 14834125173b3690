"""Schedules are pure functions of the moment, and say where they may go."""

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.utils import instantiate

from onestep.methods.core.schedule import (
    Clock,
    Constant,
    Cosine,
    Doubling,
    Exponential,
    Linear,
    MatchedDecay,
    Piecewise,
    Position,
    Product,
    Schedule,
    Sigmoid,
    SquareRootGrowth,
    require_range,
)
from onestep.tests.methods.contract import to_node
from onestep.tests.methods.core.contract import moment

SCHEDULES: list[Schedule] = [
    Constant(value=0.3),
    Linear(start=1.0, end=0.2, begin=0.1, until=0.6),
    Linear(start=0.0, end=1.0, until=50.0, clock=Clock.STEP),
    Cosine(start=1.0, end=0.0),
    Sigmoid(start=1.0, end=0.0),
    Exponential(start=1.0, end=0.01),
    Doubling(start=2, end=16),
    Doubling(start=3, end=12, begin=0.1, until=0.4),
    SquareRootGrowth(start=1, end=150),
    MatchedDecay(value=0.9, points=2.0, steps=SquareRootGrowth(start=1, end=150)),
    Piecewise(values=(1.0, 0.5, 0.1), boundaries=(0.2, 0.7)),
    Product(factors=(Linear(start=0.0, end=1.0, until=0.1), Cosine(start=2.0, end=1.0))),
]


def values(schedule: Schedule, *progress: float) -> list[float]:
    return [schedule(moment(round(1000 * p), total=1000)) for p in progress]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_survives_a_configuration(schedule: Schedule) -> None:
    again = instantiate(to_node(schedule), _convert_="all")
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert values(again, 0.0, 0.3, 0.999) == values(schedule, 0.0, 0.3, 0.999)
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.value = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        (Constant(value=0.3), [0.3, 0.3, 0.3, 0.3]),
        (Linear(start=1.0, end=0.0), [1.0, 0.75, 0.5, 0.1]),
        (Linear(start=1.0, end=0.0, begin=0.25, until=0.5), [1.0, 1.0, 0.0, 0.0]),
        (Cosine(start=1.0, end=0.0), [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.0244717]),
        (Exponential(start=1.0, end=1e-4), [1.0, 0.1, 0.01, 10**-3.6]),
        (Doubling(start=2, end=16), [2.0, 4.0, 8.0, 16.0]),
        (Doubling(start=2, end=16, until=0.5), [2.0, 8.0, 16.0, 16.0]),
        (SquareRootGrowth(start=1, end=11), [1.0, 6.0, 8.0, 11.0]),
        (
            MatchedDecay(value=0.5, points=2.0, steps=Doubling(start=1, end=8)),
            [0.5, 0.5 ** (2 / 3), 0.5**0.4, 0.5 ** (2 / 9)],
        ),
        (Piecewise(values=(3.0, 2.0), boundaries=(0.5,)), [3.0, 3.0, 2.0, 2.0]),
    ],
    ids=repr,
)
def test_a_schedule_has_its_values_at_0_25_50_and_90_percent(
    schedule: Schedule, want: list[float]
) -> None:
    assert values(schedule, 0.0, 0.25, 0.5, 0.9) == pytest.approx(want, abs=1e-6)


def test_a_sigmoid_is_symmetric_and_snaps_to_its_ends() -> None:
    schedule = Sigmoid(start=1.0, end=0.0, steepness=25.0, snap=0.005)
    first, early, middle, late, last = values(schedule, 0.0, 0.4, 0.5, 0.6, 0.9)
    assert (first, middle, last) == (1.0, 0.5, 0.0)
    assert early + late == pytest.approx(1.0)
    assert 0.9 < early < 1.0
    assert values(schedule, 0.5 - 0.0879, 0.5 + 0.0879) == pytest.approx([0.9, 0.1], abs=5e-4)
    kept = values(schedule, 0.5 - 0.211, 0.5 + 0.211)
    assert kept == pytest.approx([0.9949, 0.0051], abs=1e-4)
    assert values(schedule, 0.5 - 0.213, 0.5 + 0.213) == [1.0, 0.0]


def test_a_steep_sigmoid_is_a_step() -> None:
    schedule = Sigmoid(start=1.0, end=0.0, steepness=2000.0)
    assert values(schedule, 0.0, 0.4, 0.5, 0.6, 0.9) == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


def test_clocks_count_progress_samples_and_steps() -> None:
    now = dataclasses.replace(moment(30, total=120), batch_size=64)
    assert Clock.PROGRESS.read(now) == 0.25
    assert Clock.STEP.read(now) == 30.0
    assert Clock.SAMPLES.read(now) == 30.0 * 64
    warmup = Linear(start=0.0, end=1.0, until=3840.0, clock=Clock.SAMPLES)
    assert warmup(now) == 0.5


def test_a_schedule_declares_the_clocks_that_its_value_depends_on() -> None:
    counts = Doubling(start=2, end=16, until=6400.0, clock=Clock.SAMPLES)
    warmup, decay = Linear(start=0.0, end=1.0, until=50.0, clock=Clock.STEP), Cosine(start=1, end=0)
    assert Constant(value=1.0).clocks == frozenset()
    assert counts.clocks == MatchedDecay(value=0.9, points=2.0, steps=counts).clocks
    assert counts.clocks == {Clock.SAMPLES}
    assert Product(factors=(warmup, decay, Constant(value=2.0))).clocks == {
        Clock.STEP,
        Clock.PROGRESS,
    }
    assert Product(factors=()).clocks == frozenset()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_nothing_but_its_clocks_changes_a_schedule(schedule: Schedule) -> None:
    """Moments that differ in the other clocks only have the same value."""
    turned = {
        Clock.PROGRESS: {"total": 1000},
        Clock.SAMPLES: {"batch_size": 64},
    }
    at = dataclasses.replace(moment(30, total=120), batch_size=8)
    for clock, change in turned.items():
        other = dataclasses.replace(at, **change)
        if clock not in schedule.clocks:
            assert schedule(other) == schedule(at)


def test_a_count_doubles_by_the_clock_that_it_is_given() -> None:
    schedule = Doubling(start=2, end=8, until=90.0, clock=Clock.STEP)
    found = [schedule(moment(step, total=1000)) for step in (0, 29, 30, 59, 60, 90, 900)]
    assert found == [2.0, 2.0, 4.0, 4.0, 8.0, 8.0, 8.0]


def test_the_name_of_a_clock_in_a_file_is_enough() -> None:
    schedule = Linear(start=0.0, end=1.0, until=10.0, clock="step")  # type: ignore[arg-type]
    assert schedule.clock is Clock.STEP


def test_a_product_multiplies_its_factors() -> None:
    schedule = Product(factors=(Constant(value=3.0), Linear(start=1.0, end=0.0)))
    assert values(schedule, 0.0, 0.5) == pytest.approx([3.0, 1.5])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Linear(start=0.0, end=1.0, begin=0.5, until=0.5), "0 <= begin < until"),
        (lambda: Linear(start=0.0, end=1.0, until=2.0), "ends by 1, got until 2"),
        (
            lambda: Linear(start=0.0, end=1.0, until=math.inf, clock=Clock.SAMPLES),
            "until must be finite, got inf",
        ),
        (lambda: Exponential(start=0.0, end=1.0), "positive ends, got 0"),
        (lambda: Sigmoid(start=0.0, end=1.0, snap=0.5), r"snap in \[0, 0.5\)"),
        (lambda: Doubling(start=2, end=12), "power of two, got 2 and 12"),
        (lambda: Doubling(start=0, end=8), "power of two, got 0 and 8"),
        (lambda: Doubling(start=1.5, end=6), "a whole start .*, got 1.5 and 6"),
        (lambda: SquareRootGrowth(start=0, end=8), "1 <= start <= end, got 0 and 8"),
        (lambda: SquareRootGrowth(start=1.5, end=8.5), "whole counts"),
        (
            lambda: MatchedDecay(value=1.5, points=2.0, steps=Constant(value=4.0)),
            r"value in \(0, 1\]",
        ),
        (
            lambda: MatchedDecay(value=0.9, points=2.0, steps=Constant(value=0.0)),
            r"steps of a matched decay must stay in \[1, inf\]",
        ),
        (lambda: Piecewise(values=(1.0,), boundaries=(0.5,)), "one fewer than values"),
        (lambda: Piecewise(values=(1.0, 2.0, 3.0), boundaries=(0.5, 0.5)), "rising boundaries"),
        (lambda: Piecewise(values=(1.0, 2.0), boundaries=(1.0,)), "progress .* between 0 and 1,"),
        (lambda: Piecewise(values=(1.0, 2.0), boundaries=(0.0,)), "progress .* between 0 and 1,"),
        (
            lambda: Piecewise(values=(1.0, 2.0), boundaries=(-5.0,), clock=Clock.SAMPLES),
            "samples .* between 0 and inf,",
        ),
        (lambda: Linear(start=0.0, end=1.0, clock="hour"), "'hour' is not a valid Clock"),  # type: ignore[arg-type]
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(
    build: Callable[[], Schedule], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_range_holds_every_value_or_is_refused(schedule: Schedule) -> None:
    seen = values(schedule, *(k / 200 for k in range(200)))
    low, high = min(seen), max(seen)
    with pytest.raises(ValueError, match="share must stay in"):
        require_range("share", schedule, low + 0.01, high - 0.01)
    require_range("share", schedule, min(low, 0.0), max(high, 2.0) + 0.01)


def kinds(parent: type[Schedule] = Schedule) -> Iterator[type[Schedule]]:
    """Every schedule of the project."""
    for child in parent.__subclasses__():
        if not inspect.isabstract(child) and child.__module__.startswith("onestep.methods."):
            yield child
        yield from kinds(child)


def test_every_kind_of_schedule_is_tried_here() -> None:
    assert set(kinds()) == {type(schedule) for schedule in SCHEDULES}
    assert set(kinds()) == {type(schedule) for schedule, *_ in STANDS}


def progress(share: float) -> tuple[Position, ...]:
    return (Position(clock=Clock.PROGRESS, share=share),)


STANDS: list[tuple[Schedule, list[tuple[Position, ...]]]] = [
    (Constant(value=0.3), [(), (), (), ()]),
    (Linear(start=1.0, end=0.2), [*map(progress, (0.0, 0.25, 0.5, 1.0))]),
    (Linear(start=1.0, end=0.2, begin=0.4, until=0.6), [*map(progress, (0.0, 0.0, 0.5, 1.0))]),
    (Linear(start=0.2, end=0.2, until=0.6), [(), (), (), ()]),
    (Cosine(start=1.0, end=0.0, until=0.5), [*map(progress, (0.0, 0.5, 1.0, 1.0))]),
    (Sigmoid(start=1.0, end=0.0, until=0.5), [*map(progress, (0.0, 0.5, 1.0, 1.0))]),
    (Exponential(start=1.0, end=0.1, until=0.5), [*map(progress, (0.0, 0.5, 1.0, 1.0))]),
    (Doubling(start=2, end=16, until=0.5), [*map(progress, (0.0, 0.5, 1.0, 1.0))]),
    (Doubling(start=2, end=2, until=0.5), [(), (), (), ()]),
    (SquareRootGrowth(start=1, end=9, until=0.5), [*map(progress, (0.0, 0.5, 1.0, 1.0))]),
    (
        MatchedDecay(value=0.9, points=2.0, steps=Doubling(start=2, end=16, until=0.5)),
        [*map(progress, (0.0, 0.5, 1.0, 1.0))],
    ),
    (
        MatchedDecay(value=1.0, points=2.0, steps=Doubling(start=2, end=16, until=0.5)),
        [(), (), (), ()],
    ),
    (
        Piecewise(values=(3.0, 2.0, 1.0), boundaries=(0.25, 0.9)),
        [*map(progress, (0.0, 0.5, 0.5, 1.0))],
    ),
    (
        Piecewise(values=(3.0, 1.0, 1.0), boundaries=(0.25, 0.9)),
        [*map(progress, (0.0, 1.0, 1.0, 1.0))],
    ),
    (Piecewise(values=(1.0, 1.0), boundaries=(0.5,)), [(), (), (), ()]),
    (
        Product(factors=(Linear(start=0.0, end=1.0, until=0.5), Constant(value=2.0))),
        [*map(progress, (0.0, 0.5, 1.0, 1.0))],
    ),
    (
        Product(
            factors=(
                Linear(start=0.0, end=1.0, until=3200.0, clock=Clock.SAMPLES),
                Cosine(start=1.0, end=0.0),
                Linear(start=2.0, end=1.0, begin=50.0, until=100.0, clock=Clock.STEP),
            )
        ),
        [
            (
                Position(clock=Clock.SAMPLES, share=samples),
                *progress(share),
                Position(clock=Clock.STEP, share=steps),
            )
            for share, samples, steps in (
                (0.0, 0.0, 0.0),
                (0.25, 0.5, 0.0),
                (0.5, 1.0, 0.0),
                (1.0, 1.0, 1.0),
            )
        ],
    ),
    (Product(factors=(Cosine(start=1.0, end=0.0), Constant(value=0.0))), [(), (), (), ()]),
]


@pytest.mark.parametrize(("schedule", "want"), STANDS, ids=lambda one: repr(one)[:80])
def test_a_schedule_says_where_it_stands_at_0_25_50_and_100_percent(
    schedule: Schedule, want: list[tuple[Position, ...]]
) -> None:
    """Of a run of 100 steps of 64 samples."""
    at = [dataclasses.replace(moment(k, total=100), batch_size=64) for k in (0, 25, 50, 100)]
    found = [schedule.positions(now) for now in at]
    assert [[one.clock for one in each] for each in found] == [
        [one.clock for one in each] for each in want
    ]
    shares = [one.share for each in found for one in each]
    assert shares == pytest.approx([one.share for each in want for one in each])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_value_of_a_schedule_that_has_finished_its_moves_stays(schedule: Schedule) -> None:
    """And one that stands anywhere changes."""
    run = [moment(step, total=1000) for step in range(1001)]
    finished = [
        schedule(now) for now in run if all(one.share == 1.0 for one in schedule.positions(now))
    ]
    assert len(set(finished)) == 1
    assert (len({schedule(now) for now in run}) > 1) is bool(schedule.positions(run[0]))


def readers_of(*names: str) -> set[str]:
    """Files of methods that read these of a moment."""
    methods = Path(__file__).parents[3] / "methods"
    return {
        path.relative_to(methods).as_posix()
        for path in methods.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and ast.unparse(node.value) == "now"
    }


def test_schedules_alone_read_how_far_a_run_is() -> None:
    """Whatever else did would move unseen by those who ask the schedules where they stand."""
    assert readers_of("progress", "samples", "total") == {"core/schedule.py"}
    in_turns = {"align_your_flow", "consistency_trajectory", "dmd2", "flow_generator_matching"}
    assert readers_of("step") == {"core/schedule.py", *(f"{name}.py" for name in in_turns)}
