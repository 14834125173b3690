import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import optuna
import pytest
from mlflow.entities import Run

from onestep.platform.registry.connection import Connection
from onestep.platform.registry.run import Run as OurRun
from onestep.platform.registry.run import RunFacts
from onestep.sweeps.journal import Journal
from onestep.sweeps.objective import Objective, Objectives
from onestep.sweeps.record import folder_of_trial, report_file
from onestep.sweeps.searcher import NUMBER
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.study import open_storage

_SETTINGS: Final = SweepSettings(
    name="toy",
    base=(),
    space=Space.from_dict({"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1)}),
)
_FACTS: Final = RunFacts(
    experiment="moons", name="toy-1", config={}, overrides=(), seed=0, data_digest="d"
)


@pytest.fixture
def empty_store(tmp_path: Path) -> Connection:
    return Connection(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A study of which three trials have ended."""
    made = optuna.create_study(
        storage=open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), study_name="toy-1"
    )
    for value in (3.0, 2.0, None):
        trial = made.ask()
        _SETTINGS.space.suggest(trial)
        trial.set_user_attr("samples", 100)
        if value is not None:
            trial.set_user_attr("results", [[value, value, value]])
        state = optuna.trial.TrialState.FAIL if value is None else None
        made.tell(trial, value, state=state)
    return made


def journal(
    study: optuna.Study, connection: Connection, folder: Path, say: Callable[[str], None]
) -> Journal:
    return Journal(study, _SETTINGS, folder=folder, connection=connection, facts=_FACTS, say=say)


def trials_in(connection: Connection) -> list[Run]:
    group = connection.experiment("moons")
    runs = connection.client.search_runs([group], order_by=["attributes.start_time"])
    return [run for run in runs if run.info.run_name != "toy-1"]


def test_a_store_that_is_away_does_not_end_a_sweep_and_gets_later_what_it_missed(
    study: optuna.Study, tmp_path: Path, empty_store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    begun = journal(study, empty_store, tmp_path, said.append)  # its own run is known from here on
    away = journal(study, Connection("http://127.0.0.1:9"), tmp_path, said.append)
    with away:
        away.on_trial_complete(0, [], SimpleNamespace(config={NUMBER: 0}))
    assert said[0].startswith("trial 0: eval/w2 at 1 NFE 3")
    assert said[1].startswith(
        "trial 0 is not in MLflow yet: the MLflow store at http://127.0.0.1:9 does not"
    )
    assert trials_in(empty_store) == []

    # And one run was cut off while it was written.
    OurRun.start(empty_store, replace(_FACTS, name="toy-1-1"))
    with begun:
        begun.catch_up()
    found = trials_in(empty_store)
    assert sorted((run.info.run_name, run.info.status) for run in found) == [
        ("toy-1-0", "FINISHED"),
        ("toy-1-1", "FINISHED"),
        ("toy-1-2", "FAILED"),
    ]
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {begun.run.run_id}
    assert {run.data.metrics.get("sweep/quality") for run in found} == {3.0, 2.0, None}
    begun.catch_up()  # nothing is missing
    assert [run.info.run_id for run in trials_in(empty_store)] == [r.info.run_id for r in found]


def test_trials_are_written_in_their_order_and_whole_when_the_journal_is_left(
    study: optuna.Study, tmp_path: Path, empty_store: Connection
) -> None:
    with journal(study, empty_store, tmp_path, lambda line: None) as begun:
        for number in (1, 0, 2):
            begun.on_trial_complete(0, [], SimpleNamespace(config={NUMBER: number}))
    found = trials_in(empty_store)
    assert [run.info.run_name for run in found] == ["toy-1-1", "toy-1-0", "toy-1-2"]
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED", "FAILED"]
    assert all(run.info.end_time for run in found)
    assert found[0].data.metrics["sweep/quality"] == 2.0
    x = study.get_trials()[1].params["x"]
    assert found[0].data.params == {"x": str(x)}
    where = empty_store.client.download_artifacts(found[0].info.run_id, "config.json")
    assert json.loads(Path(where).read_text()) == {"x": x}


def test_a_run_that_cannot_be_written_is_an_error_of_the_sweep(
    study: optuna.Study, tmp_path: Path, empty_store: Connection
) -> None:
    report = report_file(tmp_path, 0, rung=None)
    report.parent.mkdir(parents=True)
    report.write_text("no report")
    begun = journal(study, empty_store, tmp_path, lambda line: None)
    with pytest.raises(ValueError, match="Expecting value"), begun:
        begun.on_trial_complete(0, [], SimpleNamespace(config={NUMBER: 0}))


_CUT_OFF: Final = """
import os, sys
from pathlib import Path

import optuna

from onestep.platform.registry.connection import Connection
from onestep.sweeps.study import open_storage
from onestep.tests.sweeps.test_journal import journal

folder = Path(sys.argv[1])
storage = open_storage(f"sqlite:///{folder / 'optuna.db'}")
study = optuna.load_study(study_name="toy-1", storage=storage)
study.set_user_attr = lambda name, value: os._exit(9)
journal(study, Connection(f"sqlite:///{folder / 'mlflow.db'}"), folder, print)
"""


def test_a_sweep_that_was_cut_off_before_its_study_knew_its_run_has_one_run_afterwards(
    study: optuna.Study, tmp_path: Path, empty_store: Connection
) -> None:
    group = empty_store.experiment("moons")
    OurRun.start(empty_store, replace(_FACTS, name="toy-11"))  # of another sweep
    cut_off = subprocess.run([sys.executable, "-c", _CUT_OFF, str(tmp_path)])
    assert cut_off.returncode == 9
    for _ in range(2):
        begun = journal(study, empty_store, tmp_path, lambda line: None)
        with begun.run, begun:
            begun.catch_up()
    runs = empty_store.client.search_runs([group])
    found = [(one.info.run_name, one.info.status) for one in runs if "-1-" not in one.info.run_name]
    assert sorted(found) == [("toy-1", "FINISHED"), ("toy-11", "RUNNING")]


def test_texts_of_a_sweep_are_artifacts_of_its_own_run(
    study: optuna.Study, tmp_path: Path, empty_store: Connection
) -> None:
    begun = journal(study, empty_store, tmp_path, lambda line: None)
    (tmp_path / "report.html").write_text("<p>caf\u00e9</p>")
    begun.keep("report.html")
    run_id = begun.run.run_id
    found = empty_store.client.download_artifacts(run_id, "report.html", str(tmp_path / "down"))
    assert Path(found).read_text() == "<p>caf\u00e9</p>"


def test_a_trial_that_waits_at_a_rung_keeps_no_weights_of_the_runs_that_have_ended(
    study: optuna.Study, tmp_path: Path, empty_store: Connection
) -> None:
    trial = study.ask()
    for name, value in (("rung", 0), ("samples", 100), ("results", [[1.0, 1.0, 1.0]])):
        trial.set_user_attr(name, value)
    places = [folder_of_trial(tmp_path, trial.number, rung=rung) for rung in range(2)]
    for place in places:
        for kind in ("checkpoints", "snapshots"):
            (place / kind).mkdir(parents=True)
    report_file(tmp_path, trial.number, rung=0).write_text("{}")
    begun = journal(study, empty_store, tmp_path, lambda line: None)
    begun.on_trial_complete(0, [], SimpleNamespace(config={NUMBER: trial.number}))
    assert [path.name for path in places[0].iterdir()] == ["report.json"]
    assert {path.name for path in places[1].iterdir()} == {"checkpoints", "snapshots"}
