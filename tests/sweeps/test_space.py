import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from onestep.platform.configuration import compose
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
