import math
from typing import Any, Final

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from onestep.platform.configuration import compose
from onestep.sweeps.condition import Scalar
from onestep.sweeps.dimension import Dimension
from onestep.sweeps.space import Space, override


def dimension(**values: Any) -> Dimension:
    return Space.from_dict({"key": values}).dimensions["key"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "normal", "low": 0, "high": 1}, "kind must be one of uniform, log_uniform"),
        ({"kind": "uniform", "low": 1.0, "high": 0.5}, "low < high, got low 1.0 and high 0.5"),
        ({"kind": "uniform", "low": 1.0, "high": 1.0}, "low < high"),
        ({"kind": "uniform", "low": 0.0}, "got low 0.0 and high None"),
        ({"kind": "uniform", "low": 0.0, "high": math.nan}, "low < high"),
        ({"kind": "uniform", "low": 0.0, "high": "1"}, "low < high"),
        ({"kind": "uniform", "low": 0.0, "high": 1.0, "values": [1]}, "not values"),
        ({"kind": "log_uniform", "low": 0.0, "high": 1.0}, "low > 0, got 0.0"),
        ({"kind": "int", "low": 1, "high": 2.5}, "whole bounds"),
        ({"kind": "choice", "values": ["adam"]}, "at least two different values"),
        ({"kind": "choice", "values": [1, 1]}, "at least two different values"),
        ({"kind": "choice", "values": [1, True]}, "at least two different values"),
        ({"kind": "log_int", "low": 0, "high": 5}, "low > 0, got 0"),
        ({"kind": "log_int", "low": 1, "high": 5.5}, "whole bounds"),
        ({"kind": "integer", "low": 1, "high": 5}, "kind must be one of"),
        ({"kind": "choice", "values": [1, [2]]}, "between plain values"),
        ({"kind": "choice", "low": 0, "values": [1, 2]}, "not low and high"),
        ({"kind": "choice", "values": 5}, "a choice needs a list of values, got 5"),
        ({"kind": "choice", "values": "adam"}, "a choice needs a list of values, got 'adam'"),
        ({"kind": "choice", "values": {"a": 1, "b": 2}}, "a choice needs a list of values, got"),
        ({"kind": "choice", "values": None}, "a choice needs a list of values, got None"),
        ({"kind": ["choice"]}, "kind must be one of uniform"),
        ({"kind": "uniform", "low": 0.0, "hgih": 1.0}, "takes kind, and low and high or values"),
        ({"low": 0.0, "high": 1.0}, "takes kind"),
    ],
)
def test_a_bad_dimension_is_refused_with_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"sweep\.space\[key\].*{said}"):
        dimension(**values)


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Space.from_dict({})


@pytest.mark.parametrize("values", [3, None, "method.weighting.power", ["net"]])
def test_a_space_that_is_no_mapping_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"sweep\.space must be values by key, got"):
        Space.from_dict(values)


def test_keys_of_several_kinds_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"takes kind, .*, got \['1', 'kind'\]"):
        Space.from_dict({"key": {"kind": "uniform", 1: 2}})


def test_the_kinds_are_distributions_of_optuna() -> None:
    assert dimension(kind="uniform", low=0, high=1).distribution == FloatDistribution(0.0, 1.0)
    assert dimension(kind="log_uniform", low=1e-4, high=1).distribution == FloatDistribution(
        1e-4, 1.0, log=True
    )
    assert dimension(kind="int", low=1, high=3).distribution == IntDistribution(1, 3)
    assert dimension(kind="log_int", low=1, high=8).distribution == IntDistribution(1, 8, log=True)
    chosen = dimension(kind="choice", values=["a", None, 2]).distribution
    assert chosen == CategoricalDistribution(("a", None, 2))


def test_a_space_survives_its_plain_values() -> None:
    plain = {
        "a.b": {"kind": "uniform", "low": 0.25, "high": 0.9},
        "c": {"kind": "choice", "values": ["adam", "radam"]},
    }
    space = Space.from_dict(plain)
    assert space.to_dict() == plain
    assert Space.from_dict(space.to_dict()) == space


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_in_an_override_is_read_back_exactly(value: float) -> None:
    key, _, text = override("key", value).partition("=")
    assert key == "key"
    assert float(text) == value


@pytest.mark.parametrize(
    "value",
    ["mine", "two words", "it's", "null", "true", "1e3", "a,b=[c]", "back\\", "", None, True],
)
def test_a_word_in_an_override_is_read_back_by_hydra(value: str | bool | None) -> None:
    assert compose("train", [override("name", value)])["name"] == value


@pytest.mark.parametrize("value", [1e-5, 0.7151893663724195, -3.0, 1e22, 5e-324])
def test_hydra_reads_a_number_as_the_same_number(value: float) -> None:
    got = compose("train", [override("training.clip_norm", value)])["training"]["clip_norm"]
    assert got == value
    assert isinstance(got, float)


_POWER: Final = {"kind": "choice", "values": [0.0, 0.5, 1.0]}
_SHARE: Final = {"kind": "uniform", "low": 0.0, "high": 1.0}
_NESTED: Final = {
    "deep": _SHARE | {"when": {"inner": "x", "outer": [2, 3]}},
    "inner": {"kind": "choice", "values": ["x", "y"], "when": {"outer": [1, 2]}},
    "outer": {"kind": "choice", "values": [1, 2, 3]},
    "free": {"kind": "log_int", "low": 1, "high": 1000},
    "least": _SHARE,
    "most": _SHARE,
    "constraints": ["least + 0.1 <= most", "deep > least"],
}


NESTED: Final = Space.from_dict(_NESTED)


def drawn(space: Space, seed: int) -> dict[str, Scalar]:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


@given(st.integers(0, 2**32 - 1))
def test_a_point_has_the_dimensions_whose_conditions_it_meets(seed: int) -> None:
    space = NESTED
    values = drawn(space, seed)
    expected = {"outer", "free", "least", "most"}
    if values["outer"] in (1, 2):
        expected.add("inner")
        if values["inner"] == "x" and values["outer"] == 2:
            expected.add("deep")
    assert set(values) == expected
    assert list(values) == [key for key in space.dimensions if key in expected], "in a fixed order"
    assert set(space.overrides(values)) == {override(key, values[key]) for key in expected}


def test_optuna_draws_as_the_kinds_say() -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    values = NESTED.suggest(trial)
    assert "free" in values
    expected = {key: NESTED.dimensions[key].distribution for key in values}
    assert trial.distributions == expected


@given(st.integers(0, 2**32 - 1))
def test_the_first_constraint_that_a_point_breaks_is_named(seed: int) -> None:
    space = NESTED
    values: dict[str, Any] = drawn(space, seed)
    said = None
    if "deep" in values and not values["deep"] > values["least"]:
        said = "deep > least"
    if not values["least"] + 0.1 <= values["most"]:
        said = "least + 0.1 <= most"
    assert space.violated(values) == said


def test_parents_come_before_their_children_and_else_the_order_is_as_written() -> None:
    assert list(Space.from_dict(_NESTED).dimensions) == [
        "outer",
        "inner",
        "deep",
        "free",
        "least",
        "most",
    ]


def test_a_space_with_conditions_and_constraints_survives_its_plain_values() -> None:
    assert Space.from_dict(_NESTED).to_dict() == _NESTED
    assert Space.from_dict(Space.from_dict(_NESTED).to_dict()) == Space.from_dict(_NESTED)


@pytest.mark.parametrize("values", [{"p": 0.0, "q": 0.5}, {"p": 1.0}, {"q": 0.5}, {}])
def test_values_that_are_no_point_have_no_overrides(values: dict[str, Scalar]) -> None:
    space = Space.from_dict({"p": _POWER, "q": _SHARE | {"when": {"p": [0.5, 1.0]}}})
    with pytest.raises(ValueError, match="these values are no point of the space: missing"):
        space.overrides(values)


def test_the_first_point_and_the_edges_satisfy_the_constraints() -> None:
    space = Space.from_dict(_NESTED)
    assert space.first == {"outer": 1, "inner": "x", "free": 1, "least": 0.0, "most": 0.1}
    edges = space.edges
    assert all(space.violated(point) is None for _, point in edges)
    outermost = {(key, point[key]) for key, point in edges if key not in ("outer", "inner", "free")}
    assert outermost == {
        ("deep", 1e-5),
        ("deep", 1.0),
        ("least", 0.0),
        ("least", 0.9),
        ("most", 0.1),
        ("most", 1.0),
    }
    choices = [(key, point[key]) for key, point in edges if key in ("outer", "inner")]
    assert choices == [("outer", 1), ("outer", 2), ("outer", 3), ("inner", "x"), ("inner", "y")]


def test_a_choice_that_the_constraints_never_allow_is_no_edge() -> None:
    space = Space.from_dict({"p": _POWER, "q": _SHARE, "constraints": ["q + p < 1"]})
    with pytest.raises(ValueError, match=r"sweep\.space\[p\]: no point with p 1.0 satisfies"):
        _ = space.edges


def test_new_values_of_a_choice_are_those_of_conditions_on_it() -> None:
    space = Space.from_dict(
        {
            "teacher": {"kind": "choice", "values": [None, "digits@champion"]},
            "scale": _SHARE | {"when": {"teacher": "digits@champion"}},
        }
    )
    other = space.with_values("teacher", {None: None, "digits@champion": "digits/3"})
    assert other.to_dict() == {
        "teacher": {"kind": "choice", "values": [None, "digits/3"]},
        "scale": _SHARE | {"when": {"teacher": ["digits/3"]}},
    }


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"q": _SHARE | {"when": 3}}, r"\[q\]: when must be values by the key of a choice, got 3"),
        ({"q": _SHARE | {"when": {"p": []}}}, r"\[q\]: when needs a plain value or a list"),
        ({"q": _SHARE | {"when": {"p": {"a": 1}}}}, r"\[q\]: when needs a plain value or a list"),
        ({"q": _SHARE | {"when": {"p": 1.0}}}, r"\[q\] has a when of p, .*allowed: none"),
        (
            {"p": _SHARE, "q": _SHARE | {"when": {"p": 1.0}}, "r": _POWER},
            r"\[q\] has a when of p, which is no choice of the space, allowed: r",
        ),
        (
            {"p": _POWER, "q": _SHARE | {"when": {"p": [1.0, 2.0]}}},
            r"\[q\] has a when of p 2.0, which it never takes, allowed: 0.0, 0.5, 1.0",
        ),
        ({"p": _POWER | {"when": {"p": 1.0}}}, r"\[p\] depends on itself by when, in: p"),
        (
            {
                "a": _POWER,
                "p": _POWER | {"when": {"q": 1.0}},
                "q": _POWER | {"when": {"a": 0.5, "p": 1.0}},
            },
            r"\[p\] depends on itself by when, in: p, q",
        ),
        (
            {
                "p": _POWER,
                "q": _POWER | {"when": {"p": 0.5}},
                "r": _SHARE | {"when": {"p": 1.0, "q": 0.0}},
            },
            r"\[r\] is never present",
        ),
        ({"q": _SHARE, "constraints": "q < 1"}, r"\[constraints\] must be a list, got 'q < 1'"),
        ({"q": _SHARE, "constraints": ["q"]}, r"\[constraints\]: a constraint is .*got 'q'"),
        ({"q": _SHARE, "constraints": ["q < r"]}, r"\[constraints\], q < r: r is not in sweep"),
        (
            {"q": _SHARE, "p": {"kind": "choice", "values": [1, "x"]}, "constraints": ["q < p"]},
            r"q < p: p is no number: it is a choice between \[1, 'x'\]",
        ),
        ({"q": _SHARE, "constraints": ["q > 1"]}, r"no point can satisfy 'q > 1' with q from 0 to"),
        (
            {"q": _SHARE, "r": _SHARE, "constraints": ["q < r", "r <= q"]},
            "no point of sweep.space satisfies all of its constraints",
        ),
        (
            {
                "p": _POWER,
                "q": _SHARE | {"when": {"p": 0.5}},
                "r": _SHARE | {"when": {"p": 1.0}},
                "constraints": ["q < r"],
            },
            "q < r: no point has all of its keys",
        ),
        (
            {
                "a": {"kind": "schedule", "shapes": ["linear"], "start": _SHARE, "end": 1.0},
                "a.begin": _SHARE,
            },
            r"\[a.begin\] is a part of the schedule a",
        ),
        (
            {"a": {"kind": "schedule", "shapes": ["linear"], "start": 0.0, "end": 1.0}},
            "at least one key, got schedules that are fixed",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(space: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Space.from_dict(space)
