import shlex
from collections.abc import Mapping
from typing import Any, Final

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestep.methods.core import schedule as schedules
from onestep.methods.core.schedule import Clock, Linear, MatchedDecay, Piecewise, Product, Schedule
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.sweeps.condition import Scalar
from onestep.sweeps.record import command_line
from onestep.sweeps.shape import SHAPES, sentence
from onestep.sweeps.space import Space

_KEY: Final = "method.alpha"
_RAMP: Final = {"kind": "schedule", "shapes": ["linear"], "start": 1.0, "end": 0.0}
_STEPS: Final = {
    "kind": "schedule",
    "shapes": ["piecewise"],
    "start": 1.0,
    "end": 0.0,
    "knots": [1, 2],
    "lengths": {"kind": "uniform", "low": 0.1, "high": 0.4},
    "values": 0.5,
}
_ALL: Final = {
    "kind": "schedule",
    "shapes": ["constant", "linear", "cosine", "sigmoid", "exponential", "piecewise"],
    "value": {"kind": "choice", "values": [0.25, 1]},
    "start": {"kind": "uniform", "low": 0.5, "high": 1.0},
    "end": {"kind": "log_uniform", "low": 1e-5, "high": 0.1},
    "begin": {"kind": "uniform", "low": 0.0, "high": 0.7},
    "length": {"kind": "uniform", "low": 0.01, "high": 0.3},
    "steepness": {"kind": "log_uniform", "low": 5.0, "high": 50.0},
    "snap": 0.0,
    "knots": [1, 3, 4],
    "lengths": {"kind": "uniform", "low": 0.01, "high": 0.24},
    "values": {"kind": "uniform", "low": 0.0, "high": 1.0},
}


def space(**node: Any) -> Space:
    return Space.from_dict({_KEY: node})


WHOLE: Final = space(**_ALL)


def drawn(space: Space, seed: int) -> dict[str, Scalar]:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


def composed(overrides: tuple[str, ...]) -> Schedule:
    """The schedule that training has after a trial's line was pasted into a shell."""
    program, command, *pasted = shlex.split(command_line(("method=alpha_flow", *overrides)))
    assert (program, command) == ("onestep", "train")
    return build(compose("train", pasted)["method"]["alpha"], Schedule)


def numbers(values: Mapping[str, Scalar]) -> dict[str, Any]:
    return {key.removeprefix(f"{_KEY}."): value for key, value in values.items()}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_pasted_trial_has_the_schedule_that_was_drawn(seed: int) -> None:
    values = drawn(WHOLE, seed)
    made, given_ = composed(WHOLE.overrides(values)), numbers(values)
    shape = given_.pop("shape")
    assert type(made) is SHAPES[shape]
    if not isinstance(made, Piecewise):
        length = given_.pop("length", None)
        assert {name: getattr(made, name) for name in given_} == given_
        if length is not None:
            assert made.until == pytest.approx(made.begin + length, abs=1e-12)  # type: ignore[attr-defined]
        return
    knots = given_["knots"]
    middle = [given_[f"value_{n}"] for n in range(2, knots + 1)]
    lengths = [given_[f"length_{n}"] for n in range(1, knots + 1)]
    assert made.values == (given_["start"], *middle, given_["end"])
    assert made.boundaries == pytest.approx([sum(lengths[:n]) for n in range(1, knots + 1)])
    assert len(given_) == 3 + len(middle) + len(lengths), "values of no effect were drawn"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_all_that_is_drawn_is_a_schedule_in_order(seed: int) -> None:
    values = drawn(WHOLE, seed)
    (part,) = WHOLE.schedules.values()
    made = part.schedule(_KEY, values)  # whose class refuses knots that fall and ends before begins
    assert made.clocks <= {Clock.PROGRESS}
    assert ("steepness" in numbers(values)) is isinstance(made, schedules.Sigmoid)
    assert ("knots" in numbers(values)) is isinstance(made, Piecewise)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_values_of_a_schedule_are_found_again(seed: int) -> None:
    values, one = drawn(WHOLE, seed), WHOLE.schedules[_KEY]
    schedule = one.schedule(_KEY, values)
    found = one.values_of(_KEY, schedule)
    assert one.schedule(_KEY, found) == schedule
    assert found == pytest.approx(values, abs=1e-11)
    assert all(WHOLE.dimensions[key].has(value) for key, value in found.items())


@pytest.mark.parametrize("begin", [0.1, 0.30000000000000004, 1 / 3])
@pytest.mark.parametrize("length", [0.2, 0.3])
def test_a_length_at_its_bound_is_found_again(begin: float, length: float) -> None:
    bounds = {"kind": "uniform", "low": 0.2, "high": 0.3}
    one = space(**_RAMP, begin={"kind": "uniform", "low": 0.0, "high": 0.5}, length=bounds)
    values = {f"{_KEY}.begin": begin, f"{_KEY}.length": length}
    assert one.schedules[_KEY].values_of(_KEY, one.schedules[_KEY].schedule(_KEY, values)) == values


def test_a_length_after_a_beginning_between_two_roundings_is_found() -> None:
    part = {"kind": "uniform", "low": 0.0, "high": 0.5}
    one = space(**_RAMP, begin=part, length={**part, "low": 0.1}).schedules[_KEY]
    ramp = Linear(start=1.0, end=0.0, begin=0.2476999999995, until=0.494924524357)
    assert one.schedule(_KEY, one.values_of(_KEY, ramp)) == ramp


def test_a_length_is_found_with_no_more_digits_than_it_was_written_with() -> None:
    one = space(**_RAMP, begin=0.1, length={"kind": "choice", "values": [0.2, 0.6]})
    found = one.schedules[_KEY].values_of(_KEY, Linear(start=1.0, end=0.0, begin=0.1, until=0.3))
    assert found == {f"{_KEY}.length": 0.2}


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (schedules.Doubling(start=1, end=4), "has the shape doubling, sweep.space draws constant,"),
        (Product(factors=()), "has the shape Product, sweep.space draws constant, linear, cosine,"),
        (
            Piecewise(values=(1.0, 0.5, 0.05), boundaries=(0.1, 0.2)),
            "has 2 knots, sweep.space draws 1, 3, 4",
        ),
        (
            Piecewise(values=(1.0, 0.05), boundaries=(0.5,)),
            r"has boundaries \(0.5,\), and the nearest .* draws has boundaries \(0.24,\)",
        ),
        (
            Linear(start=1.0, end=0.2, begin=0.5, until=0.75),
            "has end 0.2, and the nearest that sweep.space draws has end 0.1",
        ),
        (Linear(start=1.0, end=0.1, until=0.5), "has until 0.5, and the nearest .* until 0.3"),
        (
            schedules.Sigmoid(start=1.0, end=0.1, until=0.25, snap=0.01),
            "has snap 0.01, and the nearest that sweep.space draws has snap 0.0",
        ),
        (
            Linear(start=1.0, end=0.1, until=0.25, clock=Clock.SAMPLES),
            "has clock samples, and the nearest that sweep.space draws has clock progress",
        ),
        (schedules.Constant(value=0.5), "has value 0.5, and the nearest .* has value 0.25"),
    ],
)
def test_it_is_said_why_a_schedule_is_not_drawn(schedule: Schedule, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{_KEY} {said}"):
        WHOLE.schedules[_KEY].values_of(_KEY, schedule)


def test_an_old_schedule_leaves_nothing_behind() -> None:
    made = composed(
        space(**_RAMP | {"until": {"kind": "uniform", "low": 0.3, "high": 0.5}}).overrides(
            {f"{_KEY}.until": 0.3}
        )
    )
    assert made == Linear(start=1.0, end=0.0, until=0.3)


def test_every_schedule_that_stands_alone_is_a_shape() -> None:
    concrete = {
        kind
        for kind in vars(schedules).values()
        if isinstance(kind, type) and issubclass(kind, Schedule) and kind.__name__[0] != "_"
    }
    assert set(SHAPES.values()) == concrete - {Schedule, Product, MatchedDecay}


def test_what_is_fixed_is_no_dimension() -> None:
    one = space(
        **_RAMP
        | {"end": {"kind": "uniform", "low": 0.0, "high": 0.5}, "clock": "samples", "until": 1000}
    )
    assert list(one.dimensions) == ["method.alpha.end"]
    made = composed(one.overrides({"method.alpha.end": 0.25}))
    assert made == Linear(start=1.0, end=0.25, until=1000, clock=Clock.SAMPLES)


def test_dimensions_are_present_where_their_shape_needs_them() -> None:
    found = WHOLE.dimensions
    shape, knots = f"{_KEY}.shape", f"{_KEY}.knots"
    assert found[shape].when == {}
    assert found[knots].when == {shape: ("piecewise",)}
    assert found[f"{_KEY}.steepness"].when == {shape: ("sigmoid",)}
    assert found[f"{_KEY}.length_1"].when == {shape: ("piecewise",)}
    assert found[f"{_KEY}.length_4"].when == {shape: ("piecewise",), knots: (4,)}
    assert found[f"{_KEY}.value_2"].when == {shape: ("piecewise",), knots: (3, 4)}
    assert f"{_KEY}.value_1" not in found
    assert f"{_KEY}.value_5" not in found


def test_a_space_of_schedules_survives_its_plain_values() -> None:
    plain = {
        "rule": {"kind": "choice", "values": ["a", "b"]},
        _KEY: _ALL | {"when": {"rule": ["a"]}, "clock": "step", "length": 0.2},
        "method.strength": _STEPS | {"when": {"method.alpha.shape": "linear"}},
    }
    plain[_KEY] |= {"begin": {"kind": "int", "low": 0, "high": 10}}
    assert Space.from_dict(plain).to_dict() == plain


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"shapes": ["lineal"]}, "shapes are constant, linear, .* got 'lineal'"),
        ({"shapes": [["linear"]]}, r"shapes are constant, .* got \['linear'\]"),
        ({"shapes": "linear"}, "shapes must be a list, got 'linear'"),
        ({"shapes": []}, "shapes must be different and at least one"),
        ({"shapes": ["linear", "linear"]}, "shapes must be different and at least one"),
        ({"start": "one"}, "start must be a number or a mapping with a kind, got 'one'"),
        ({"start": True}, "start must be a number"),
        ({"start": {"kind": "choice", "values": ["a", "b"]}}, "start: .*not of numbers"),
        ({"start": {"kind": "uniform", "low": 1}}, "start: uniform needs numbers low < high"),
        (
            {"start": {"kind": "choice", "values": [1, 2], "when": {"a": 1}}},
            "start has no when of its own",
        ),
        ({"stop": 1.0}, "no shape of linear has stop"),
        ({"steepness": 3.0}, "no shape of linear has steepness"),
        ({"value": 3.0}, "no shape of linear has value"),
        ({"knots": [1]}, "knots and the shape piecewise need each other"),
        ({"until": 1.0, "length": 1.0}, "until and length say the same"),
        ({"clock": "epochs"}, "clock must be one of progress, samples, step, got 'epochs'"),
        ({"clock": "samples"}, "missing: until"),
        ({"shapes": ["linear", "constant"]}, "missing: value"),
        ({"until": 1.5}, "shape linear with .*until 1.5: schedule on the clock progress ends by 1"),
        (
            {
                "begin": {"kind": "uniform", "low": 0.0, "high": 0.5},
                "until": {"kind": "uniform", "low": 0.4, "high": 1.0},
            },
            "needs 0 <= begin < until, got begin 0.5 and until 0.4",
        ),
        ({"begin": 0.75, "length": {"kind": "uniform", "low": 0.1, "high": 0.3}}, "got until 1.05"),
        ({"shapes": ["exponential"]}, "exponential schedule needs positive ends"),
        (
            {"shapes": ["doubling"], "start": 2, "end": {"kind": "int", "low": 4, "high": 16}},
            "start times a power of two, got 2 and 15",
        ),
        (
            {
                "shapes": ["square_root_growth"],
                "end": {"kind": "uniform", "low": 4.0, "high": 16.0},
            },
            "square-root growth needs whole counts",
        ),
        (_STEPS | {"knots": []}, "knots and the shape piecewise need each other"),
        (_STEPS | {"knots": 2}, "knots must be a list, got 2"),
        (_STEPS | {"knots": [0, 1]}, "knots must be different whole numbers from 1"),
        (_STEPS | {"knots": [True]}, "knots must be different whole numbers from 1"),
        (_STEPS | {"knots": [1]}, "no shape of piecewise has values"),
        (_STEPS | {"knots": [1, 3]}, "boundaries between 0 and 1"),
        (_STEPS | {"lengths": {"kind": "uniform", "low": 0.0, "high": 0.1}}, "boundaries"),
        (_STEPS | {"begin": 0.5}, "no shape of piecewise has begin"),
    ],
)
def test_a_bad_schedule_is_refused_with_its_key(node: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"sweep\.space\[method\.alpha\]: .*{said}"):
        space(**_RAMP | node)


@pytest.mark.parametrize("missing", ["shapes", "start", "end"])
def test_a_schedule_that_lacks_a_part_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        space(**{name: part for name, part in _RAMP.items() if name != missing})


def test_a_person_can_read_what_was_drawn() -> None:
    steps = space(**_STEPS)
    values = {f"{_KEY}.knots": 2, f"{_KEY}.length_1": 0.1, f"{_KEY}.length_2": 0.2}
    assert steps.sentences(values) == (
        "method.alpha: 1 up to 0.1, 0.5 up to 0.3, then 0, on the clock progress",
    )
    assert "boundaries:[0.1,0.3]" in steps.overrides(values)[1]
    growth = schedules.SquareRootGrowth(start=10, end=1280, until=5000, clock=Clock.STEP)
    assert sentence(growth) == (
        "square root growth from 10 to 1280 between 0 and 5000, on the clock step"
    )
    assert sentence(schedules.Constant(value=0.5)) == "constant 0.5"
