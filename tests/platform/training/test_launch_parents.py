"""A run and its parents: the teachers and pairs that it reads, and those that it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onestep.methods.core.flow_map import DomainKind
from onestep.platform.data.pairs import read_pairs
from onestep.platform.experiment import Evaluation
from onestep.platform.home import Home
from onestep.platform.registry.errors import ReferenceNotFound, RegistryUnreachable
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training import checkpoint
from onestep.platform.training.assembly import assemble
from onestep.platform.training.cost import cost_of
from onestep.platform.training.errors import TrainingDiverged
from onestep.platform.training.launch import launch
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import train_trial
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.group import distance, run_group, state_at
from onestep.tests.platform.training.launching import (
    STEPS,
    experiment,
    train_at_home,
)
from onestep.tests.platform.training.recipe import (
    DIGITS,
    FLOW_MATCHING,
    HALVES,
    ONE_JUMP,
    POINTS,
    REFLOW,
    TAUGHT_GAME,
)

BENT = {**FLOW_MATCHING, "path": {"_target_": "onestep.methods.core.path.TrigonometricPath"}}


def test_reflow_makes_pairs_with_their_lineage_and_names_its_parents(home: Home) -> None:
    launch(experiment(run="teacher"), Silence())
    parents = {"teacher": "eight_gaussians/1", "initial": "eight_gaussians/1"}
    student = experiment(REFLOW, run="student", parents=parents)
    trained = launch(student, Silence())
    pairs = read_pairs(trained.folder / "pairs")
    assert len(pairs.generated) == 48
    assert len(pairs.real) == 128
    assert pairs.lineage["teacher"] == "eight_gaussians/1"
    _, record = load_flow_map(Registry.at(home), "eight_gaussians/2")
    assert record.parents == {
        "initial": "eight_gaussians/1",
        "pairs": f"sha256:{pairs.digest}",
        "teacher": "eight_gaussians/1",
    }
    # The pairs are the teacher's flow: its own solver takes the noise where they say.
    other = replace(student, run="other", parents=replace(student.parents, pairs=None))
    again = launch(other, Silence())
    assert read_pairs(again.folder / "pairs").digest == pairs.digest


@pytest.mark.slow
def test_a_game_learns_from_its_teacher_and_is_served_without_its_companions(home: Home) -> None:
    launch(experiment(run="teacher"), Silence())
    game = experiment(TAUGHT_GAME, run="game", parents={"teacher": "eight_gaussians/1"})
    trained = launch(game, Silence())
    flow_map, record = load_flow_map(Registry.at(home), "eight_gaussians/2")
    assert record.parents == {"teacher": "eight_gaussians/1"}
    assert flow_map.domain.kind is DomainKind.FROM_NOISE
    last = checkpoint.latest(trained.folder / "checkpoints")
    assert last is not None
    alone = state_at(last)
    assert alone["companions"]["fake"]
    assert set(flow_map.state_dict()) == set(alone["online"])

    run_group(train_at_home, 2, game.to_dict(), home.root / "two", str(home.root))
    together = state_at(home.root / "two" / "checkpoints" / f"step-{STEPS:010d}")
    assert distance(together, alone) < 1e-10


def test_pairs_of_another_teacher_are_not_used_again(home: Home) -> None:
    launch(experiment(run="teacher"), Silence())
    launch(replace(experiment(run="better"), seed=4), Silence())
    parents = {"teacher": "eight_gaussians/1"}
    failing = {"lr": 1e200, "training": {"clip_norm": 0.0}}
    student = experiment(REFLOW, run="student", parents=parents, **failing)
    with pytest.raises(TrainingDiverged):  # and the pairs are there
        launch(student, Silence())
    for changed in (
        replace(student, parents=replace(student.parents, teacher="eight_gaussians/2")),
        replace(student, pairs=replace(student.pairs, steps=student.pairs.steps + 1)),
    ):
        with pytest.raises(ValueError, match="made by another teacher or with other settings"):
            launch(changed, Silence())
    assert len(Registry.at(home).list()) == 2


@pytest.mark.slow
def test_given_pairs_need_the_weights_that_made_them_in_this_registry(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(experiment(run="teacher"), Silence())
    student = experiment(REFLOW, run="made", parents={"teacher": "eight_gaussians/1"})
    pairs = launch(student, Silence()).folder / "pairs"
    given = experiment(REFLOW, run="given", parents={"pairs": str(pairs)})
    record = Registry.at(home).entry(launch(given, Silence()).reference).record
    digest = read_pairs(pairs).digest
    assert record.parents == {"pairs": f"sha256:{digest}", "teacher": "eight_gaussians/1"}

    elsewhere = home.root.parent / "elsewhere"
    monkeypatch.setenv("ONESTEP_HOME", str(elsewhere))
    with pytest.raises(ValueError, match="eight_gaussians/1, which the registry here does not"):
        launch(given, Silence())
    launch(replace(experiment(run="namesake"), seed=4), Silence())
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(ValueError, match=r"eight_gaussians/1 with weights \w{12}\.\.\., that of"):
        launch(given, Silence())
    assert sorted(elsewhere.rglob("*")) == before

    monkeypatch.setenv("ONESTEP_HOME", str(home.root))
    manifest = json.loads((pairs / "manifest.json").read_text())
    del manifest["lineage"]["teacher_weights"]
    (pairs / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="must say which weights their teacher eight_gaussians/1"):
        launch(replace(given, run="older"), Silence())


def test_a_parent_that_is_not_registered_is_refused_before_anything_is_written(home: Home) -> None:
    before = sorted(home.root.iterdir())
    with pytest.raises(ReferenceNotFound):
        launch(experiment(REFLOW, parents={"teacher": "eight_gaussians/9"}), Silence())
    assert sorted(home.root.iterdir()) == before


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (DIGITS, r"their shape is \(2,\), that of the data here \(1, 8, 8\)"),
        (
            {**POINTS, "seed": 1},
            r"their digest is \w{12}\.\.\., that of the data here \w{12}\.\.\.",
        ),
        (HALVES, "their classes is 0, that of the data here 2"),
    ],
)
def test_a_teacher_of_other_data_is_refused_before_anything_is_written(
    data: dict[str, Any], sentence: str, home: Home
) -> None:
    launch(experiment(run="teacher"), Silence())
    before = sorted(home.root.rglob("*"))
    student = experiment(REFLOW, data=data, parents={"teacher": "eight_gaussians/1"})
    with pytest.raises(
        ValueError, match=f"eight_gaussians/1 was trained on other data: {sentence}"
    ):
        launch(student, Silence())
    assert sorted(home.root.rglob("*")) == before


def test_a_frozen_teacher_of_other_data_is_refused_by_a_run_and_by_a_dry_run(home: Home) -> None:
    launch(experiment(run="teacher"), Silence())
    before = sorted(home.root.rglob("*"))
    student = experiment(TAUGHT_GAME, data=DIGITS, parents={"teacher": "eight_gaussians/1"})
    said = r"the teacher makes data of shape \(2,\), the data have \(1, 8, 8\)"
    with pytest.raises(ValueError, match=said):
        launch(student, Silence())
    with pytest.raises(ValueError, match=said):
        cost_of(student, {}, is_measured=False)
    assert sorted(home.root.rglob("*")) == before


def test_a_teacher_that_is_no_velocity_is_refused_before_anything_is_written(home: Home) -> None:
    trained = launch(
        replace(experiment(ONE_JUMP, run="teacher"), evaluation=Evaluation()), Silence()
    )
    assert trained.report.nfes == (1,)  # of the default list, what the map allows
    before = sorted(home.root.rglob("*"))
    with pytest.raises(
        ValueError, match="making pairs by eight_gaussians/1 needs a map trained on"
    ):
        launch(experiment(REFLOW, parents={"teacher": "eight_gaussians/1"}), Silence())
    assert sorted(home.root.rglob("*")) == before


def test_a_teacher_of_another_path_makes_pairs_and_teaches_nothing_else(home: Home) -> None:
    launch(experiment(BENT, run="teacher"), Silence())
    before = sorted(home.root.rglob("*"))
    with pytest.raises(
        ValueError,
        match="needs a teacher of the path linear, got eight_gaussians/1 of the path trigonometric",
    ):
        launch(experiment(TAUGHT_GAME, parents={"teacher": "eight_gaussians/1"}), Silence())
    assert sorted(home.root.rglob("*")) == before
    student = experiment(REFLOW, run="student", parents={"teacher": "eight_gaussians/1"})
    assert str(launch(student, Silence()).reference) == "eight_gaussians/2"
    paths = [Registry.at(home).load(f"eight_gaussians/{k}").record.domain["path"] for k in (1, 2)]
    assert paths == ["trigonometric", "linear"]


def test_guided_pairs_of_a_teacher_that_never_lost_a_label_are_refused(home: Home) -> None:
    never = {"_target_": "onestep.methods.core.guidance.LabelDropout", "probability": 0.0}
    teacher = {**FLOW_MATCHING, "label_dropout": never}
    launch(experiment(teacher, run="teacher", data=HALVES), Silence())
    student = experiment(REFLOW, data=HALVES, parents={"teacher": "halves/1"})
    guided = replace(student, pairs=replace(student.pairs, guidance=2.0))
    before = sorted(home.root.rglob("*"))
    with pytest.raises(ValueError, match=r"pairs\.guidance reads halves/1 without its condition"):
        launch(guided, Silence())
    assert sorted(home.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("method", "parents"),
    [
        (TAUGHT_GAME, {"teacher": "eight_gaussians/1"}),
        (FLOW_MATCHING, {"initial": "eight_gaussians/1"}),
    ],
)
def test_a_trial_that_is_given_its_parents_asks_no_store_for_them(
    method: dict[str, Any],
    parents: dict[str, str],
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch(experiment(run="teacher"), Silence())
    student = experiment(method, run="", parents=parents)
    assembly = assemble(student)
    models = assembly.load_models()
    assert set(models) == {"eight_gaussians/1"}
    dataset = assembly.source.load()

    def train(name: str, **given: Any) -> str:
        folder = tmp_path / name
        last = train_trial(student, MemoryReporter(), folder=folder, dataset=dataset, **given)
        return checkpoint.digest_of(last)

    asked = train("asked")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnreachable):
        train("refused")
    assert train("given", models=models) == asked
