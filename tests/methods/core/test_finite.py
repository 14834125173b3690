"""No number of a method or of a part of one may be infinite or none at all."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from typing import Any, Final

import pytest

import onestep.methods
import onestep.methods.core
from onestep.methods.core.autoguidance import Guided
from onestep.methods.core.balance import GradientRatio
from onestep.methods.core.feature_distance import FeatureDistance
from onestep.methods.core.schedule import Constant, Linear, Sigmoid, require_range
from onestep.methods.oracle import GaussianMap

BUILT: Final = (
    GradientRatio(at="last", reference="a"),
    FeatureDistance(features=("a",)),
)
"""Parts that cannot be built by their names alone."""
NUMBERS: Final = (float, float | None)


def parts() -> Iterator[Any]:
    """Every method and part of one, with its own values."""
    yield from BUILT
    for package in (onestep.methods, onestep.methods.core):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for one in vars(module).values():
                is_part = isinstance(one, type) and dataclasses.is_dataclass(one)
                if is_part and one.__module__ == module.__name__ and is_built_by_name(one):
                    yield one()


def is_built_by_name(one: type) -> bool:
    """Whether a class is a part that needs no values."""
    return not inspect.isabstract(one) and not any(
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(one)
        if field.init
    )


def numbers() -> list[Any]:
    """Each number of a part, with the part."""
    return [
        pytest.param(part, field.name, id=f"{type(part).__name__}.{field.name}")
        for part in parts()
        for field in dataclasses.fields(part)
        if field.type in NUMBERS
    ]


@pytest.mark.parametrize(("part", "name"), numbers())
def test_a_number_that_is_none_or_infinite_is_refused(part: Any, name: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=str(value)):
            dataclasses.replace(part, **{name: value})


def test_there_are_numbers_of_many_parts() -> None:
    found = {param.id for param in numbers()}
    assert len(found) >= 60
    assert {"SoFlow.scale", "AlphaFlow.clip", "GuidanceScales.highest", "EDM.sigma_max"} <= found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_schedule_that_is_none_or_infinite_is_refused(value: float) -> None:
    for schedule in (Constant(value=value), Linear(start=0.0, end=value)):
        with pytest.raises(ValueError, match=str(value)):
            require_range("it", schedule, 0.0, math.inf)
    with pytest.raises(ValueError, match=str(value)):
        Sigmoid(start=0.0, end=1.0, steepness=value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_scale_of_guidance_that_is_none_or_infinite_is_refused(value: float) -> None:
    oracle = GaussianMap(mean=[0.0], std=[1.0])
    with pytest.raises(ValueError, match=str(value)):
        Guided(oracle, oracle, scale=value)
