"""No number of a method or of a part of one may be infinite or none at all."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
import torch

import onestep.methods
import onestep.methods.core
import onestep.methods.nets
from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.core.autoguidance import Guided
from onestep.methods.core.balance import GradientRatio
from onestep.methods.core.feature_distance import FeatureDistance
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.grid import ListGrid
from onestep.methods.core.schedule import (
    Constant,
    Linear,
    MatchedDecay,
    Sigmoid,
    require_range,
)
from onestep.methods.nets.mlp import MLP
from onestep.methods.oracle import GaussianMap

BUILT: Final = (
    GradientRatio(at="last", reference="a"),
    FeatureDistance(features=("a",)),
    ListGrid(inner=(0.3, 0.6)),
    MatchedDecay(value=0.9, points=2.0, steps=Constant(value=4.0)),
)
"""Parts that cannot be built by their names alone, or have no numbers then."""
NUMBERS: Final = (float, float | None)
WRONG: Final = (math.nan, math.inf, -math.inf)
NET: Final[dict[str, Any]] = {"shape": (1, 8, 8), "domain": Domain(t_lo=0.1, t_hi=0.9)}


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
    for value in WRONG:
        with pytest.raises(ValueError, match=str(value)):
            dataclasses.replace(part, **{name: value})


def lists() -> list[Any]:
    """Each tuple of numbers of a part, with the part."""
    return [
        pytest.param(part, field.name, id=f"{type(part).__name__}.{field.name}")
        for part in parts()
        for field in dataclasses.fields(part)
        if list(with_one(getattr(part, field.name), math.nan))
    ]


def with_one(values: Any, wrong: float) -> Iterator[tuple[Any, ...]]:
    """A tuple, or a tuple of tuples, with one of its numbers after the other replaced."""
    for k, value in enumerate(values if isinstance(values, tuple) else ()):
        ones = [wrong] if isinstance(value, int | float) else with_one(value, wrong)
        yield from ((*values[:k], one, *values[k + 1 :]) for one in ones)


@pytest.mark.parametrize(("part", "name"), lists())
def test_a_list_with_a_number_that_is_none_or_infinite_is_refused(part: Any, name: str) -> None:
    for wrong in WRONG:
        for values in with_one(getattr(part, name), wrong):
            with pytest.raises(ValueError, match=str(wrong)):
                dataclasses.replace(part, **{name: values})


def test_there_are_lists_of_numbers() -> None:
    names = {"AlignYourFlow.chains", "ListGrid.inner", "ListedTiles.tiles"}
    assert {param.id for param in lists()} == names
    assert list(with_one(((0, "a"), (1.0,)), math.inf)) == [
        ((math.inf, "a"), (1.0,)),
        ((0, "a"), (math.inf,)),
    ]


def test_a_number_of_jumps_that_is_not_whole_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.chains must hold whole numbers .*got \(1\.5,\)"):
        AlignYourFlow(chains=(1.5,))  # type: ignore[arg-type]


def nets() -> Iterator[tuple[type[FlowMap], dict[str, Any]]]:
    """Every network, and what it is built with beside its own numbers."""
    for found in pkgutil.iter_modules(onestep.methods.nets.__path__):
        module = importlib.import_module(f"onestep.methods.nets.{found.name}")
        for one in vars(module).values():
            is_net = isinstance(one, type) and issubclass(one, FlowMap)
            if is_net and one.__module__ == module.__name__:
                needs_net = "net" in inspect.signature(one).parameters
                yield one, NET | ({"net": MLP} if needs_net else {})


def numbers_of_nets() -> list[Any]:
    """Each number of a network, with the network."""
    return [
        pytest.param(partial(net, **given), name, id=f"{net.__name__}.{name}")
        for net, given in nets()
        for name, parameter in inspect.signature(net).parameters.items()
        if parameter.annotation in NUMBERS
    ]


@pytest.mark.parametrize(("build", "name"), numbers_of_nets())
def test_a_number_of_a_network_that_is_none_or_infinite_is_refused(
    build: Callable[..., FlowMap], name: str
) -> None:
    with torch.device("meta"):
        build()
        for value in WRONG:
            with pytest.raises(ValueError, match=str(value)):
                build(**{name: value})


def test_there_are_numbers_of_all_networks() -> None:
    found = {param.id for param in numbers_of_nets()}
    assert {f"{net}.max_cycles" for net in ("MLP", "UNet", "DiT")} <= found
    assert {"ResidualFlow.lipschitz", "CouplingFlow.stretch", "EDMUNet.dropout"} <= found
    assert "Preconditioned.sigma_data" in found


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
