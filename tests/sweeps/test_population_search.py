"""A population by Ray Tune whose driver is killed goes on to the same trials and lineages."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import optuna
import pytest
from mlflow import MlflowClient

from onestep.platform.registry.store import Registry
from onestep.sweeps.lineage import LINEAGE, Lineage

_OVERRIDES: Final = (
    "sweep=mean_flow_population",
    "sweep.concurrency=2",
    "sweep.population=3",
    "sweep.trials=9",
    "sweep.scheduler.resample=0.5",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=16",
    "training.samples=1536",
    "training.batch_size=32",
    "training.checkpoint_every=32",
    "evaluation.samples=32",
)
_KILLED: Final = """
import os, signal, sys, threading, time
from pathlib import Path
from onestep.platform.cli import main

def watch():
    while not list(Path("sweeps").glob("*/trials/4/checkpoints/step-*")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
main(["sweep", *sys.argv[1:]])
"""
_WHOLE: Final = """
import sys
from onestep.platform.cli import main

sys.exit(main(sys.argv[1:]))
"""


def onestep(home: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "ONESTEP_HOME": str(home)}
    for name in ("MLFLOW_TRACKING_URI", "ONESTEP_ARTIFACTS", "RAY_ADDRESS"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        cwd=home,
        env=environment,
    )


def trials_of(home: Path) -> list[tuple[Any, ...]]:
    """All that decides a population, trial by trial."""
    (folder,) = (home / "sweeps").glob("[!.]*")
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{home / 'optuna.db'}")
    return [
        (one.number, one.state, one.params, one.values, one.user_attrs[LINEAGE])
        for one in study.get_trials()
    ]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_killed_population_goes_on_to_the_one_that_it_would_have_been(tmp_path: Path) -> None:
    killed = onestep(tmp_path / "killed", _KILLED, *_OVERRIDES)
    assert killed.returncode == -9, killed.stderr
    again = onestep(tmp_path / "killed", _WHOLE, "sweep", *_OVERRIDES, "resume=auto")
    assert again.returncode == 0, again.stderr
    assert "go on" in again.stdout
    whole = onestep(tmp_path / "whole", _WHOLE, "sweep", *_OVERRIDES)
    assert whole.returncode == 0, whole.stderr
    found = trials_of(tmp_path / "whole")
    assert trials_of(tmp_path / "killed") == found
    assert len(found) == 9
    check_told(tmp_path / "whole", found)


def check_told(home: Path, found: list[tuple[Any, ...]]) -> None:
    """Page, MLflow and the winner's record tell the lineage; its line trains the same model."""
    (folder,) = (home / "sweeps").glob("[!.]*")
    page = (folder / "report.html").read_text()
    assert "How trial" in page
    lineages = [Lineage.from_dict(one[-1]) for one in found]
    beginning = lineages[-1].beginning
    assert beginning is not None
    assert beginning.sha256[:12] in page
    address = f"sqlite:///{home / 'mlflow.db'}"
    client = MlflowClient(address)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    tags = {str(one.info.run_name): one.data.tags for one in runs}
    for number, lineage in enumerate(lineages):
        told = tags[f"{folder.name}-{number}"]
        assert told["onestep.population.parent"] == str(lineage.parent)
        assert told["onestep.population.generation"] == str(number // 3)
    best = min(range(6, 9), key=lambda number: found[number][3][0])
    record = Registry(address).entry("eight_gaussians/1").record
    assert [dict(one) for one in record.experiment["changes"]] == list(lineages[best].changes)
    assert "onestep train " + shlex.join(record.overrides) in page.replace("&#x27;", "'")
    trained = onestep(home, _WHOLE, "train", *record.overrides)
    assert trained.returncode == 0, trained.stderr
    first, second = (Registry(address).load(f"eight_gaussians/{k}").weights for k in (1, 2))
    assert all(value.equal(second[name]) for name, value in first.items())
