"""The derivative `auto`: chosen once before a run, and named in all that repeats the run."""

import json
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.methods.core.calculus import AbstractDerivative
from onestep.methods.core.method import AbstractLearner
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training import derivative_choice
from onestep.platform.training.assembly import Assembly, assemble
from onestep.platform.training.derivative_choice import (
    DerivativeChoice,
    is_auto,
    naming,
    pinned,
    with_forward_mode,
)
from onestep.platform.training.derivative_costs import DerivativeCost
from onestep.platform.training.trial import check_trial
from onestep.tests.platform.training.catalogue import CATALOGUE

CALCULUS: Final = "onestep.methods.core.calculus"
BEST: Final = {"_target_": f"{CALCULUS}.ForwardDifference", "step": 0.001}
OTHER: Final = {"_target_": f"{CALCULUS}.ForwardMode"}
AUTO: Final = ("data=moons", "net=mlp", "net.width=16", "derivative@method.derivative=auto")


def assembled(*overrides: str) -> Assembly:
    values = compose("train", overrides)
    values.pop("stages", None)
    return assemble(Experiment.from_dict(values, overrides))


def recommending(node: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cost = DerivativeCost(name="best", node=node, step=1.1, memory=1.0, error=1e-3)
    monkeypatch.setattr(derivative_choice, "measure", lambda *args, **kwargs: (cost,))


def with_a_derivative(method: str) -> bool:
    members = vars(import_module(f"onestep.methods.{method}")).values()
    classes = (it for it in members if isinstance(it, type) and issubclass(it, AbstractLearner))
    return any(
        f.type is AbstractDerivative for it in classes if is_dataclass(it) for f in fields(it)
    )


METHODS: Final = tuple(filter(with_a_derivative, CATALOGUE))


def test_some_methods_have_a_derivative() -> None:
    assert {"align_your_flow", "mean_flow"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_a_derivative_may_leave_it_open(method: str) -> None:
    lines = ["parents.teacher=none/1"] if method == "align_your_flow" else []
    lines.append(f"method={method}")
    assert is_auto(assembled(*AUTO, *lines).experiment)
    assert not is_auto(assembled(*AUTO[:-1], *lines).experiment)


def test_methods_without_a_derivative_have_none_to_choose() -> None:
    assert not is_auto(assembled(*AUTO[:-1], "method=flow_matching").experiment)
    with pytest.raises(ValueError, match=r"derivative@method\.derivative"):
        compose("train", [*AUTO, "method=flow_matching"])


def test_a_derivative_left_open_differentiates_nothing() -> None:
    assembly = assembled(*AUTO)
    with pytest.raises(ValueError, match="auto is measured and replaced when a run is launched"):
        assembly.learner.derivative.along(lambda x: x, (), ())  # type: ignore[attr-defined,union-attr]


def test_the_choice_is_kept_and_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly = assembled(*AUTO)
    recommending(BEST, monkeypatch)
    first = DerivativeChoice.of(assembly, tmp_path)
    assert first.node == BEST
    assert str(first) == "ForwardDifference step 0.001"
    first.keep(tmp_path)
    recommending(OTHER, monkeypatch)
    assert DerivativeChoice.of(assembly, tmp_path) == first
    assert DerivativeChoice.of(assembly, tmp_path / "another run").node == OTHER


def test_what_is_refused_is_kept_as_plain_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = DerivativeCost(name="best", node=BEST, step=1.1, memory=1.0, error=1e-3)
    refused = DerivativeCost(name="exact", node=OTHER, refusal="no formula")
    monkeypatch.setattr(derivative_choice, "measure", lambda *args, **kwargs: (refused, good))
    choice = DerivativeChoice.of(assembled(*AUTO), tmp_path)
    choice.keep(tmp_path)
    (note,) = tmp_path.glob("*.json")
    assert "Infinity" not in note.read_text()
    assert json.loads(note.read_text())["costs"][0]["refusal"] == "no formula"
    assert DerivativeChoice.of(assembled(*AUTO), tmp_path) == choice


def test_the_experiment_and_its_overrides_name_the_choice() -> None:
    assembly = assembled(*AUTO, "seed=5")
    applied = DerivativeChoice(node=BEST, costs=()).applied(assembly.experiment)
    assert applied.method["derivative"] == BEST
    again = assembled(*applied.overrides).experiment
    assert again.to_dict() == applied.to_dict()
    assert again.seed == 5


@pytest.mark.parametrize(
    "said",
    [
        ("derivative@method.derivative=auto",),
        ("derivative@method.derivative=central_difference", "method.derivative.step=0.01"),
        naming(BEST),
        ("experiment=digits_mean_flow",),
    ],
    ids=str,
)
def test_a_name_replaces_all_that_overrides_said_before(said: tuple[str, ...]) -> None:
    lines = pinned(said, OTHER)
    assert compose("train", lines)["method"]["derivative"] == OTHER
    assert pinned(lines, OTHER) == lines


def test_a_recipe_leaves_its_derivative_open_where_it_is_asked_to() -> None:
    asked = ["experiment=digits_mean_flow", "derivative@method.derivative=auto"]
    target = compose("train", asked)["method"]["derivative"]["_target_"]
    assert target == f"{CALCULUS}.FastestDerivative"


def test_a_machine_without_the_gpu_that_trains_does_not_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assembly = assembled(
        *AUTO, "workers.gpus_per_worker=1", "workers.ray=true", "workers.address=ray://far:1"
    )
    with pytest.raises(ValueError, match=r"has no GPU, got workers\.gpus_per_worker=1: name one"):
        DerivativeChoice.of(assembly, tmp_path)


def test_a_trial_names_its_derivative() -> None:
    with pytest.raises(ValueError, match=r"trials are compared and repeated.*got auto"):
        check_trial(assembled(*AUTO).experiment)
    check_trial(assembled(*AUTO[:-1]).experiment)


def test_where_time_does_not_matter_auto_is_exact() -> None:
    experiment = with_forward_mode(assembled(*AUTO).experiment)
    assert experiment.method["derivative"] == OTHER
    named = assembled(*AUTO[:-1]).experiment
    assert with_forward_mode(named) is named
