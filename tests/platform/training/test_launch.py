"""A run from its experiment to a registered model with its lineage."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow.entities import Run

from onestep.platform.home import Home
from onestep.platform.lock import alone
from onestep.platform.registry.errors import RegistryUnreachable
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training import checkpoint, derivative_choice, run_note
from onestep.platform.training import launch as launching
from onestep.platform.training.derivative_choice import pinned
from onestep.platform.training.derivative_costs import DerivativeCost
from onestep.platform.training.errors import CheckpointMismatch, TrainingDiverged
from onestep.platform.training.launch import launch
from onestep.platform.training.run_note import RunNote
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.group import Died, run_group, state_at
from onestep.tests.platform.training.launching import STEPS, experiment, launch_and_die
from onestep.tests.platform.training.recipe import (
    BATCH,
    FLOW_MATCHING,
    MEAN_FLOW,
    REFLOW,
)
from onestep.tests.platform.training.watching import Meddler


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


def noted(folder: Path) -> RunNote:
    note = RunNote.of(folder)
    assert note is not None
    return note


def first_run(home: Home) -> Run:
    """The MLflow run of the run that is named first."""
    return Registry.at(home).connection.client.get_run(noted(home.runs / "first").run_id)


def test_a_run_whose_figures_cannot_be_kept_is_one_version_and_one_run_when_it_is_repeated(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    watched = experiment(storage={"wandb": True})

    def figures() -> Path:
        return Path(first_run(home).info.artifact_uri.removeprefix("file://")) / "figures"

    with pytest.raises(OSError, match="figures"):
        launch(watched, Meddler(begun=lambda: figures().touch()))
    assert Registry.at(home).list() == ()
    assert first_run(home).info.status == "FAILED"
    figures().unlink()
    shown = list[str]()
    trained = launch(watched, Meddler(begun=lambda: shown.append(first_run(home).info.status)))
    assert shown == ["RUNNING"]
    assert first_run(home).info.status == "FINISHED"
    assert [entry.reference for entry in Registry.at(home).list()] == [trained.reference]
    # Weights & Biases has a file of each process, and they say that they are of one run.
    files = [file.name for file in home.wandb.rglob("*.wandb")]
    assert files == [f"run-{trained.run_id}.wandb"] * 2


def test_a_run_that_another_process_works_on_is_refused(home: Home) -> None:
    folder = home.runs / "first"
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
    chosen = json.loads((home.runs / "first" / "derivative.json").read_text())["node"]
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
    folder = home.runs / "first"
    left = checkpoint.latest(folder / "checkpoints")
    assert left is not None
    assert left.name == "step-0000000004"
    begun = noted(folder).run_id

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


def test_a_run_that_fails_is_marked_and_registers_nothing(home: Home) -> None:
    diverging = experiment(lr=1e80, training={"clip_norm": 0.0})
    with pytest.raises(TrainingDiverged):
        launch(diverging, Silence())
    registry = Registry.at(home)
    assert registry.list() == ()
    begun = noted(home.runs / "first").run_id
    assert registry.connection.client.get_run(begun).info.status == "FAILED"


def test_a_run_that_fails_while_the_store_is_away_says_why_it_failed(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    lost = home.root / "mlflow.db"
    diverging = experiment(lr=1e80, training={"clip_norm": 0.0})
    with pytest.raises(TrainingDiverged):
        launch(diverging, Meddler(begun=lambda: lost.write_bytes(b"no database" * 1000)))
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
    with pytest.raises(ValueError, match="Weights & Biases needs WANDB_MODE=offline"):
        launch(experiment(storage={"wandb": True}), Silence())
    assert sorted(home.root.rglob("*")) == before


def test_a_run_that_cannot_be_noted_in_its_folder_is_marked_as_failed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_note, "write_json", full)
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
