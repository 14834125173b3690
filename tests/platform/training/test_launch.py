"""A run from its experiment to a registered model with its lineage."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import pytest
import torch
from mlflow.entities import Run

from onestep.methods.core.flow_map import DomainKind
from onestep.platform.data.pairs import read_pairs
from onestep.platform.experiment import Evaluation, Experiment
from onestep.platform.home import Home
from onestep.platform.lock import alone
from onestep.platform.registry.errors import ReferenceNotFound, RegistryUnreachable
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training import checkpoint, derivative_choice
from onestep.platform.training import launch as launching
from onestep.platform.training.cost import cost_of
from onestep.platform.training.derivative_choice import pinned
from onestep.platform.training.derivative_costs import DerivativeCost
from onestep.platform.training.errors import CheckpointMismatch, TrainingDiverged
from onestep.platform.training.launch import launch
from onestep.platform.training.reporter import Reporter
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.group import Died, distance, run_group, state_at
from onestep.tests.platform.training.launching import launch_and_die, train_at_home
from onestep.tests.platform.training.recipe import (
    BATCH,
    DIGITS,
    FLOW_MATCHING,
    HALVES,
    MEAN_FLOW,
    ONE_JUMP,
    POINTS,
    REFLOW,
    TAUGHT_GAME,
    recipe,
)

STEPS = 6
EVALUATION = {"nfes": [1], "samples": 64}
BENT = {**FLOW_MATCHING, "path": {"_target_": "onestep.methods.core.path.TrigonometricPath"}}
PAIRS = {"count": 48, "steps": 3, "batch_size": 40}


@pytest.fixture
def home(home_folder: Path) -> Home:
    del home_folder  # the environment names it
    return Home.here()


def experiment(
    method: dict[str, Any] = FLOW_MATCHING, *, run: str = "first", **changes: Any
) -> Experiment:
    values = recipe(method, steps=STEPS, run=run, evaluation=EVALUATION, pairs=PAIRS, **changes)
    return Experiment.from_dict(values, ("method=flow_matching",))


def test_a_run_leaves_a_model_with_its_record_weights_and_report(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = iter(["as it began", "later"])
    monkeypatch.setattr(launching, "code_revision", lambda: next(revisions))
    trained = launch(experiment(), Silence())
    registry = Registry.at(home)
    assert trained.reference == registry.resolve("eight_gaussians/1")
    flow_map, record = load_flow_map(registry, "eight_gaussians/1")
    assert record.method == FLOW_MATCHING
    assert record.overrides == ("method=flow_matching",)
    assert record.experiment["training"]["samples"] == STEPS * BATCH
    assert record.seed == 3
    assert record.parents == {}
    dataset_digest = json.loads(json.dumps(record.data_digest))
    assert len(dataset_digest) == 64
    assert "eval/1nn_accuracy/nfe_1" in record.metrics
    assert record.metrics == trained.report.metrics()

    last = checkpoint.latest(trained.folder / "checkpoints")
    assert last is not None
    assert last.name == f"step-{STEPS:010d}"
    served = state_at(last)["averages"][0]
    for name, weight in flow_map.state_dict().items():
        assert torch.equal(weight, served[name].float())

    run = registry.connection.client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["onestep.revision"] == record.revision == "as it began"
    assert run.data.metrics["progress/samples"] == STEPS * BATCH
    losses = registry.connection.client.get_metric_history(trained.run_id, "loss/online")
    assert [point.step for point in losses] == list(range(1, STEPS + 1))


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


def test_a_run_that_has_ended_is_not_trained_again(home: Home) -> None:
    launch(experiment(run="once"), Silence())
    with pytest.raises(ValueError, match="run once has ended and registered eight_gaussians/1"):
        launch(experiment(run="once"), Silence())
    assert len(Registry.at(home).list()) == 1


def test_a_run_that_was_killed_once_it_had_registered_registers_no_second_version(
    home: Home,
) -> None:
    trained = launch(experiment(run="once"), Silence())
    # As after a kill between the registration and the note of it.
    (trained.folder / "run.json").write_text(json.dumps({"run_id": trained.run_id}))
    # Nor is any record read for it, which may be altered or of a newer version.
    client = Registry.at(home).connection.client
    client.set_model_version_tag("eight_gaussians", "1", "onestep.record", "{}")
    with pytest.raises(ValueError, match="run once has ended and registered eight_gaussians/1"):
        launch(experiment(run="once"), Silence())
    assert len(Registry.at(home).list()) == 1


@final
class Meddler:
    """Does something as a training begins, once its run has been opened.

    Args:
        act: Does it.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self._act, self._silence = act, Silence()

    def say(self, line: str) -> None:
        self._silence.say(line)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        with self._silence.counting(what) as count:
            yield count

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        with self._silence.training(experiment) as bar:
            self._act()
            yield bar


def first_run(home: Home) -> Run:
    """The MLflow run of the run that is named first."""
    note = json.loads((home.root / "runs" / "first" / "run.json").read_text())
    return Registry.at(home).connection.client.get_run(note["run_id"])


def test_a_run_whose_figures_cannot_be_kept_is_one_version_and_one_run_when_it_is_repeated(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    watched = experiment(storage={"wandb": True})

    def figures() -> Path:
        return Path(first_run(home).info.artifact_uri.removeprefix("file://")) / "figures"

    with pytest.raises(OSError, match="figures"):
        launch(watched, Meddler(lambda: figures().touch()))
    assert Registry.at(home).list() == ()
    assert first_run(home).info.status == "FAILED"
    figures().unlink()
    shown = list[str]()
    trained = launch(watched, Meddler(lambda: shown.append(first_run(home).info.status)))
    assert shown == ["RUNNING"]
    assert first_run(home).info.status == "FINISHED"
    assert [entry.reference for entry in Registry.at(home).list()] == [trained.reference]
    # Weights & Biases has a file of each process, and they say that they are of one run.
    files = [file.name for file in home.wandb.rglob("*.wandb")]
    assert files == [f"run-{trained.run_id}.wandb"] * 2


def test_a_run_that_another_process_works_on_is_refused(home: Home) -> None:
    folder = home.root / "runs" / "first"
    with alone(folder, what="run"):
        before = sorted(folder.iterdir())
        refusal = f"run first is running already: another process works in {folder}"
        with pytest.raises(ValueError, match=refusal):
            launch(experiment(), Silence())
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
def test_a_derivative_left_open_is_chosen_once_and_named_in_every_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculus = "onestep.methods.core.calculus"
    method = {**MEAN_FLOW, "derivative": {"_target_": f"{calculus}.FastestDerivative"}}
    left_open = experiment(method, training={"checkpoint_every": 2 * BATCH})
    with pytest.raises(Died, match="-9"):
        run_group(launch_and_die, 1, left_open.to_dict(), str(home.root), 5)
    chosen = json.loads((home.root / "runs" / "first" / "derivative.json").read_text())["node"]
    assert chosen["_target_"] != f"{calculus}.FastestDerivative"

    # A machine that would choose otherwise by now goes on with the derivative of the start.
    kind = "ForwardMode" if "Difference" in chosen["_target_"] else "CentralDifference"
    node = {"_target_": f"{calculus}.{kind}"}
    other = DerivativeCost(name="other", node=node, step=1.0, memory=1.0, error=0.0)
    monkeypatch.setattr(derivative_choice, "measure", lambda *args, **kwargs: (other,))
    trained = launch(left_open, Silence())
    _, record = load_flow_map(Registry.at(home), str(trained.reference))
    assert record.method["derivative"] == record.experiment["method"]["derivative"] == chosen
    assert record.overrides == pinned(left_open.overrides, chosen)
    fresh = launch(replace(left_open, run="second"), Silence())
    _, record = load_flow_map(Registry.at(home), str(fresh.reference))
    assert record.method["derivative"] == node


def test_a_killed_run_goes_on_in_a_new_process_under_its_name(home: Home) -> None:
    training = {"checkpoint_every": 2 * BATCH, "keep_checkpoints": 1}
    killed = experiment(training=training)
    with pytest.raises(Died, match="-9"):
        run_group(launch_and_die, 1, killed.to_dict(), str(home.root), 5)
    folder = home.root / "runs" / "first"
    left = checkpoint.latest(folder / "checkpoints")
    assert left is not None
    assert left.name == "step-0000000004"
    begun = json.loads((folder / "run.json").read_text())["run_id"]

    # Repeated with a slip of the hand, it is refused, and the record of the run stays as it was.
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointMismatch, match="belongs to another network"):
        launch(replace(killed, net={**killed.net, "width": 24}), Silence())
    assert sorted(folder.rglob("*")) == before
    assert Registry.at(home).connection.client.get_run(begun).info.status == "RUNNING"

    trained = launch(killed, Silence())
    assert trained.run_id == begun
    whole = launch(replace(killed, run="whole"), Silence())
    _, ours = load_flow_map(Registry.at(home), str(trained.reference))
    _, theirs = load_flow_map(Registry.at(home), str(whole.reference))
    assert ours.metrics == theirs.metrics
    ends = [checkpoint.latest(each.folder / "checkpoints") for each in (trained, whole)]
    states = [state_at(end)["online"] for end in ends if end is not None]
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())
    # The record of the process that was killed is complete, too.
    client = Registry.at(home).connection.client
    assert client.get_run(begun).info.status == "FINISHED"


def test_a_store_that_does_not_answer_is_refused_before_anything_is_written(home: Home) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    before = sorted(home.root.iterdir())
    with pytest.raises(RegistryUnreachable, match=f"the MLflow store at {uri} does not answer"):
        launch(experiment(storage={"tracking_uri": uri}), Silence())
    assert sorted(home.root.iterdir()) == before


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


def test_a_run_that_fails_is_marked_and_registers_nothing(home: Home) -> None:
    diverging = experiment(lr=1e80, training={"clip_norm": 0.0})
    with pytest.raises(TrainingDiverged):
        launch(diverging, Silence())
    registry = Registry.at(home)
    assert registry.list() == ()
    begun = json.loads((home.root / "runs" / "first" / "run.json").read_text())["run_id"]
    assert registry.connection.client.get_run(begun).info.status == "FAILED"


def test_a_run_that_fails_while_the_store_is_away_says_why_it_failed(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    lost = home.root / "mlflow.db"
    diverging = experiment(lr=1e80, training={"clip_norm": 0.0})
    with pytest.raises(TrainingDiverged):
        launch(diverging, Meddler(lambda: lost.write_bytes(b"no database" * 1000)))
    assert "the last metrics were not reported" in caplog.text
    assert "could not be marked as FAILED" in caplog.text


def test_wandb_without_a_login_is_refused_before_anything_is_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home.root.parent / name))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    before = sorted(home.root.rglob("*"))
    with pytest.raises(ValueError, match=r"storage\.wandb=true needs WANDB_MODE=offline"):
        launch(experiment(storage={"wandb": True}), Silence())
    assert sorted(home.root.rglob("*")) == before


def test_a_run_that_cannot_be_noted_in_its_folder_is_marked_as_failed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(launching, "write_json", full)
    with pytest.raises(OSError, match="No space left on device"):
        launch(experiment(), Silence())
    client = Registry.at(home).connection.client
    (group,) = (one for one in client.search_experiments() if one.name == "eight_gaussians")
    (run,) = client.search_runs([group.experiment_id])
    assert run.info.status == "FAILED"


def test_a_record_names_versions_in_its_overrides_where_aliases_were_said(home: Home) -> None:
    launch(experiment(run="teacher"), Silence())
    registry = Registry.at(home)
    registry.promote("eight_gaussians/1", "champion", why="the only one")
    said = {"teacher": "eight_gaussians@champion", "initial": "eight_gaussians/1"}
    student = experiment(REFLOW, run="student", parents=said)
    lines = (
        "method=reflow",
        "+parents.teacher=eight_gaussians@champion",
        "parents.initial=eight_gaussians/1",
    )
    trained = launch(replace(student, overrides=lines), Silence())
    record = registry.entry(trained.reference).record
    assert record.overrides == (
        "method=reflow",
        "parents.initial=eight_gaussians/1",
        "parents.teacher=eight_gaussians/1",
    )
