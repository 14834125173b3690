"""Whatever is killed, the sweep comes to the end that it would have had."""

import json
import os
import secrets
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import optuna
import pytest
from optuna.study import Study

from onestep.platform.head_watch import LOST
from onestep.platform.training import checkpoint as checkpoints
from onestep.sweeps.record import Outcome
from onestep.sweeps.study import ended
from onestep.tests.sweeps import killing

SCRIPT: Final = Path(killing.__file__)
RECONNECT_S: Final = 20

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def environment(home: Path) -> dict[str, str]:
    """That of a process with a home of its own, to which no other Ray is known."""
    home.mkdir()
    known = {name: it for name, it in os.environ.items() if not name.startswith("RAY_")}
    return {
        **known,
        "ONESTEP_HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_raylet_start_wait_time_s": "120",  # other tests run beside this one
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of a sweep of which nothing was killed."""
    home = tmp_path_factory.mktemp("whole") / "home"
    done = subprocess.run(
        [sys.executable, "-m", "onestep.platform.cli", *killing.COMMAND],
        env=environment(home),
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return study_of(home)


def study_of(home: Path) -> Study:
    storage = f"sqlite:///{home / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def kill(what: str, home: Path) -> dict[str, Any]:
    """What the script saw."""
    return seen_by(SCRIPT, what, home)


def seen_by(script: Path, what: str, home: Path) -> dict[str, Any]:
    """What a script saw of a sweep on a cluster of its own."""
    done = subprocess.run(
        [sys.executable, script, what, home],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def check_same(home: Path, whole: Study) -> None:
    """No trial is lost or run twice, points and values are equal bit by bit, files are whole."""
    study = study_of(home)
    assert [one.number for one in study.get_trials()] == [0, 1, 2]
    assert [one.params for one in study.get_trials()] == [one.params for one in whole.get_trials()]
    assert [one.values for one in study.get_trials()] == [one.values for one in whole.get_trials()]
    assert {one.outcome for one in ended(study)} == {Outcome.FINISHED}
    (folder,) = (home / "sweeps").glob("[!.]*")
    said = (home / "said").read_text()
    assert [said.count(f"\ntrial {number}: eval/") for number in range(3)] == [1, 1, 1]
    for name in ("optuna.db", "mlflow.db"):
        with sqlite3.connect(home / name) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for file in [*folder.glob("*.json"), *folder.glob("trials/**/*.json")]:
        json.loads(file.read_text())
    last = checkpoints.latest(folder / "trials" / str(killing.VICTIM) / "checkpoints")
    assert last is None or checkpoints.step_of(last) == 1200


@pytest.mark.parametrize("what", ["trial", "node"])
def test_a_trial_whose_process_or_node_is_killed_goes_on_elsewhere_under_its_number(
    what: str, whole: Study, tmp_path: Path
) -> None:
    seen = kill(what, tmp_path / "home")
    assert (seen["last"], seen.get("waits", True)) == (0, True), seen
    check_same(tmp_path / "home", whole)
    deaths = [len(one.deaths) for one in ended(study_of(tmp_path / "home"))]
    assert deaths == [0, 1, 0]
    said = (tmp_path / "home" / "said").read_text()
    assert f"\ntrial {killing.VICTIM}: retry 1 of 3, its process died: " in said
    assert readings(tmp_path / "home").count(3200) == 1, "it was begun anew"


def readings(home: Path) -> list[int]:
    """Samples at which the trial that was hit has read its loss, some twice."""
    (file,) = home.glob(f"sweeps/*/trials/{killing.VICTIM}/losses.jsonl")
    return [json.loads(line)[0] for line in file.read_text().splitlines() if line]


def test_a_sweep_whose_process_is_killed_goes_on_by_the_same_command(
    whole: Study, tmp_path: Path
) -> None:
    seen = kill("driver", tmp_path / "home")
    assert (seen["first"], seen["last"]) == (-9, 0), seen
    assert "1 ended before, 1 go on" in (tmp_path / "home" / "said").read_text()
    assert readings(tmp_path / "home").count(3200) == 1, "it was begun anew"
    check_same(tmp_path / "home", whole)


def test_a_sweep_whose_cluster_is_killed_says_so_in_time_and_goes_on_by_the_same_command(
    whole: Study, tmp_path: Path
) -> None:
    seen = kill("head", tmp_path / "home")
    assert (seen["first"], seen["last"]) == (LOST, 0), seen
    (line,) = (line for line in seen["sentence"].splitlines() if line.startswith("onestep"))
    assert "the same command goes on, that of a sweep with resume=auto" in line
    assert "Traceback" not in seen["sentence"]
    assert seen["seconds"] < RECONNECT_S
    check_same(tmp_path / "home", whole)
