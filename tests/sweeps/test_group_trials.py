"""Trials of several workers find what those of one worker find, whoever of them is killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial

from onestep.sweeps.record import COST, DEATHS, RESULTS, SECONDS_FILE

SWEEP: Final = (
    "sweep",
    "sweep.name=groups",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=16",
    "training.samples=25600",
    "training.batch_size=64",
    "training.checkpoint_every=640",
    "evaluation.nfes=[1]",
    "evaluation.samples=64",
    "sweep.trials=3",
    "sweep.concurrency=1",
    "sweep.scheduler.kind=asha",
    "sweep.scheduler.grace_samples=6400",
)
WITHIN_S: Final = 900.0
TRIAL: Final = ("SteppedTrial", "ResourceTrainable")
"""What Ray calls a process that runs a trial."""

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def start(home: Path, *more: str) -> subprocess.Popen[str]:
    home.mkdir()
    known = {name: it for name, it in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "onestep.platform.cli", *SWEEP, *more],
        env={**known, "ONESTEP_HOME": str(home), "RAY_raylet_start_wait_time_s": "120"},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(sweep: subprocess.Popen[str], *titles: str, once: Callable[[], object]) -> int:
    """Kill a process of a sweep by its title, as soon as something is so."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and sweep.poll() is None:
        found = [
            one.pid
            for one in children(sweep.pid)
            if any(title in " ".join(cmdline(one)) for title in titles)
        ]
        if found and once():
            os.kill(found[0], 9)
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"none of {titles} was seen")


def spent(trials: Path) -> dict[str, float]:
    """What the second trial had taken when it kept its last checkpoint."""
    file = trials / "1" / SECONDS_FILE
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return found


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def trials(home: Path) -> list[FrozenTrial]:
    storage = f"sqlite:///{home / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


@pytest.fixture
def two(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    running = start(tmp_path / "two", "workers.num_workers=2")
    yield running
    running.kill()
    running.wait()


def test_trials_of_two_workers_are_those_of_one_though_a_worker_and_a_trial_are_killed(
    two: subprocess.Popen[str], tmp_path: Path
) -> None:
    home = tmp_path / "two"
    while not (places := list(home.glob("sweeps/*/trials"))):
        assert two.poll() is None, two.communicate()[0]
        time.sleep(0.05)
    kill(two, "RayTrainWorker", once=lambda: list(places[0].glob("0/ray/*/step-*")))
    kill(two, *TRIAL, once=lambda: spent(places[0]).get("samples", 0) >= 4480)
    before = spent(places[0])
    left = children(two.pid)
    said, _ = two.communicate(timeout=WITHIN_S)
    assert two.returncode == 0, said

    one = start(tmp_path / "one")
    said, _ = one.communicate(timeout=WITHIN_S)
    assert one.returncode == 0, said
    in_groups, alone = trials(home), trials(tmp_path / "one")
    assert [len(each.user_attrs.get(DEATHS, ())) for each in in_groups] == [0, 1, 0]
    assert [each.state for each in in_groups] == [each.state for each in alone]
    for group, single in zip(in_groups, alone, strict=True):
        assert group.params == single.params
        assert group.user_attrs[RESULTS][0] == pytest.approx(single.user_attrs[RESULTS][0], 1e-3)
    # Up to the checkpoint that it went on from nothing is lost, and the rest takes something, too.
    after = in_groups[1].user_attrs[COST]
    assert 0.0 < before["training_s"] < after["training_s"]
    assert 0.0 < before["wall_s"] < after["wall_s"]
    assert not [process for process in left if process.is_running()]
