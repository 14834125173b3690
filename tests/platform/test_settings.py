import math
from dataclasses import dataclass
from typing import Any

import pytest

from onestep.platform.settings import by_name, settings


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    cooks: int
    heat: float = 1.0
    label: str = ""
    menu: tuple[str, ...] = ()


def test_plain_values_become_those_of_the_fields() -> None:
    got = settings(Kitchen, "kitchen", {"cooks": 2e1, "heat": 3, "label": 5, "menu": ["a", 1]})
    assert got == Kitchen(cooks=20, heat=3.0, label="5", menu=("a", "1"))
    assert isinstance(got.cooks, int)


def test_a_whole_number_may_be_larger_than_every_float() -> None:
    assert settings(Kitchen, "kitchen", {"cooks": 10**400}).cooks == 10**400


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (3, "kitchen must be settings by name .*cooks, heat, label, menu.*, got 3"),
        ({}, "kitchen lacks cooks"),
        ({"cooks": 1, "chef": 1}, "kitchen has no setting chef, allowed: cooks, heat, label, menu"),
        ({"cooks": 1, 2: 3, "chef": 1}, "kitchen has no setting 2, chef, allowed"),
        ({"cooks": math.inf}, "kitchen.cooks must be a whole number, got inf"),
        ({"cooks": None}, "kitchen.cooks must be a whole number, got None"),
        ({"cooks": 1, "heat": 10**400}, "kitchen.heat must be a finite number, got 1000"),
        ({"cooks": 1, "heat": math.nan}, "kitchen.heat must be a finite number, got nan"),
        ({"cooks": 1, "heat": -math.inf}, "kitchen.heat must be a finite number, got -inf"),
        ({"cooks": 1, "menu": "soup"}, "kitchen.menu must be a list, got 'soup'"),
    ],
)
def test_values_out_of_shape_are_refused(values: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(Kitchen, "kitchen", values)


def test_values_by_name_are_those_that_were_given() -> None:
    given: dict[str, Any] = {"cooks": "any"}
    assert by_name("kitchen", given, ["cooks", "heat"]) == given
