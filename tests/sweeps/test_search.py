import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from onestep.platform.ray_instance import ray_instance
from onestep.platform.training.assembly import assemble
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import prepare_benchmark, run_trial
from onestep.sweeps.record import Outcome
from onestep.sweeps.search import resume, sweep
from onestep.sweeps.settings import settings_of
from onestep.sweeps.trial import experiment_of

_SMALL: Final = (
    "data=eight_gaussians",
    "net=mlp",
    "training.samples=2048",
    "training.batch_size=64",
    "evaluation.nfes=[1]",
    "evaluation.samples=32",
    "sweep.concurrency=1",
    "sweep.trials=4",
)
_KILLED: Final = """
import os, signal, sys
from onestep.sweeps.search import sweep
from onestep.sweeps.settings import settings_of

def say(line):
    print(line, flush=True)
    if line.startswith("trial 1:"):
        os.kill(os.getpid(), signal.SIGKILL)

sweep(settings_of(sys.argv[1:]), say=say)
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_instance(num_cpus=2):
            yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "ONESTEP_ARTIFACTS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_sweep_that_is_unknown_cannot_go_on(home: Path) -> None:
    with pytest.raises(ValueError, match="there is no sweep 'nothing' .* only none"):
        resume("nothing")


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_killed_sweep_goes_on_without_losing_or_repeating_a_trial(
    home: Path, instance: None
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *_SMALL], capture_output=True, text=True, cwd=home
    )
    assert killed.returncode == -9, killed.stderr
    (folder,) = (home / "sweeps").iterdir()
    storage = f"sqlite:///{home / 'optuna.db'}"
    before = optuna.load_study(study_name=folder.name, storage=storage)
    finished = before.get_trials(states=(TrialState.COMPLETE,))
    cut_off = before.get_trials(states=(TrialState.RUNNING,))
    assert len(finished) == 2

    result = resume(folder.name)
    after = optuna.load_study(study_name=folder.name, storage=storage)
    assert after.get_trials()[: len(finished)] == finished
    assert len(result.trials) == 4
    assert {one.outcome for one in result.trials} == {Outcome.FINISHED}
    points = [one.values for one in result.trials]
    assert all(points.count(point) == 1 for point in points)
    assert all(one.params in points for one in cut_off)
    assert result.best_value == min(one.value for one in result.trials if one.value is not None)
    assert (folder / "table.md").exists()

    # The overrides alone give the same bits again.
    experiment = experiment_of(result.best_overrides)
    benchmark = prepare_benchmark(experiment, assemble(experiment).source.load())
    report = run_trial(experiment, MemoryReporter(), folder=home / "again", benchmark=benchmark)
    assert report.find("eval/sliced_w2", nfe=1).value == result.best_value

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (group,) = (one for one in client.search_experiments() if one.name == "eight_gaussians")
    runs = client.search_runs([group.experiment_id])
    (parent,) = (one for one in runs if one.info.run_name == folder.name)
    children = [one for one in runs if "mlflow.parentRunId" in one.data.tags]
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_trials_that_diverge_are_recorded_and_do_not_end_the_sweep(
    home: Path, instance: None
) -> None:
    lines: list[str] = []
    settings = settings_of([*_SMALL, "sweep.trials=2", "optimizer.lr=1e30", "training.clip_norm=0"])
    with pytest.raises(ValueError, match="all 2 trials of sweep .* failed.*TrainingDiverged"):
        sweep(settings, say=lines.append)
    assert sum("failed: TrainingDiverged: loss/" in line for line in lines) == 2
