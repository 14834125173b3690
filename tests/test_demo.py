"""The demo's plan: every stage is an experiment that is accepted, before anything is trained."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from onestep.examples.demo import ALIAS, champion_of, chosen, composed, plan_digest
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.registry.errors import ReferenceNotFound
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import Assembly, assemble
from onestep.sweeps.plan import Plan
from onestep.sweeps.settings import settings_of
from onestep.tests.serving.model import unet
from onestep.tests.serving.registry import NETWORK, fill_registry

PLAN: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent.parent / "examples" / "demo.yaml").read_text()
)


def assembled(overrides: list[str]) -> Assembly:
    """The things of a stage that has no parents in the registry."""
    alone = [line for line in overrides if not line.startswith("parents.")]
    return assemble(Experiment.from_dict(compose("train", alone)))


@pytest.mark.parametrize("name", ["teacher", "mean_flow", "shortcut"])
def test_a_stage_is_accepted(name: str) -> None:
    overrides = PLAN["teacher"] if name == "teacher" else PLAN["students"][name]
    assert assembled(overrides).source.name == "digits"


def test_the_student_of_pairs_names_the_teacher() -> None:
    filled = [line.replace("{teacher}", "digits/1") for line in PLAN["students"]["reflow"]]
    experiment = Experiment.from_dict(compose("train", filled))
    assert experiment.parents.teacher == experiment.parents.initial == "digits/1"


def test_one_stage_has_two_workers() -> None:
    counts = [
        assembled(overrides).experiment.workers.num_workers
        for name, overrides in PLAN["students"].items()
        if name != "reflow"
    ]
    reflow = PLAN["students"]["reflow"]
    assert counts == [1, 1]
    assert "workers.num_workers=2" in reflow


def test_the_winner_of_the_sweep_trains_mean_flow() -> None:
    settings = settings_of(PLAN["sweep"])
    won = chosen(settings, Plan.of(settings).example)
    swept = {line.partition("=")[0] for line in won if line[0] not in "~+"}
    assert swept == set(settings.space.first)
    assert assembled([*PLAN["students"]["mean_flow"], *won]).source.name == "digits"


def test_the_champion_that_is_served_is_found_beside_that_of_another_model(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    registry = Registry(fill_registry(tmp_path))
    other = registry.entry(NETWORK)
    moons = registry.register(
        replace(other.record, name="moons"), unet().state_dict(), run_id=other.run_id
    )
    registry.promote(moons, ALIAS, why="the best of its kind")
    with pytest.raises(ReferenceNotFound, match="belongs to several models"):
        registry.resolve(ALIAS)
    assert str(registry.resolve(champion_of(NETWORK))) == NETWORK


def test_what_is_published_names_files_that_the_plan_itself_only_names() -> None:
    decisive = composed(PLAN)
    student = compose("train", ["experiment=digits_short_mean_flow"])
    for part in ("net", "method", "optimizer", "learning_rate"):
        assert decisive["mean_flow"][part] == student[part]
    assert decisive["mean_flow"]["training"]["samples"] == student["training"]["samples"]
    assert decisive["search"]["trials"] == settings_of(PLAN["sweep"]).trials
    assert decisive["reflow"]["pairs"]["count"] == 3000


def test_the_published_results_are_those_of_the_plan_of_today() -> None:
    results = Path(__file__).parent.parent / "docs" / "results.md"
    assert f"with the plan `{plan_digest()}`" in results.read_text()
