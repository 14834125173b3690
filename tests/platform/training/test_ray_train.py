"""The loop under Ray Train: the same weights, also after a worker has died."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any, final

import pytest
from ray import get, kill

from onestep.platform.experiment import Experiment
from onestep.platform.ray_instance import ray_instance
from onestep.platform.shared_storage import check_shared
from onestep.platform.training.errors import (
    CheckpointMismatch,
    MetricsLost,
    TrainingDiverged,
    WorkersFailed,
)
from onestep.platform.training.launch import train
from onestep.platform.training.ray_train import forwarding, mailbox_here, train_with_ray
from onestep.platform.training.reporter import MemoryReporter
from onestep.tests.platform.training.group import distance, state_at, train_here
from onestep.tests.platform.training.recipe import BATCH, DIGITS, MEAN_FLOW, recipe

pytestmark = [
    pytest.mark.ray,
    # Ray's own: deprecated parts that it calls itself, and sockets and log files that its client
    # leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WORKERS = {"num_workers": 2, "cpus_per_worker": 0.5, "max_failures": 1}
DYING = {"_target_": "onestep.tests.platform.training.ray_parts.DyingOnce"}
NOTING = {"_target_": "onestep.tests.platform.training.ray_parts.Noting"}


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    before = dict(os.environ)
    with ray_instance(num_cpus=4):
        yield
    os.environ.clear()
    os.environ.update(before)


def test_two_ray_workers_walk_the_trajectory_of_one_and_report_every_row(tmp_path: Path) -> None:
    values = recipe(MEAN_FLOW, steps=6, data=DIGITS)
    alone, reported = train_here(values, tmp_path / "alone")
    experiment = Experiment.from_dict(values | {"workers": WORKERS})
    reporter = MemoryReporter()
    last = train_with_ray(experiment, folder=tmp_path / "together", reporter=reporter)
    assert last.is_relative_to(tmp_path / "together")
    assert distance(state_at(last), alone) < 1e-10
    ours = [row["loss/online"] for row in reported.rows if "loss/online" in row]
    theirs = [row["loss/online"] for row in reporter.rows]
    assert theirs == pytest.approx(ours, rel=1e-10)

    # The same line again finds the run done; another recipe in its folder is refused.
    again = MemoryReporter()
    assert train_with_ray(experiment, folder=tmp_path / "together", reporter=again) == last
    assert again.rows == []
    with pytest.raises(CheckpointMismatch, match="belongs to another network, method or data set"):
        train_with_ray(replace(experiment, seed=8), folder=tmp_path / "together", reporter=again)


@pytest.mark.slow
def test_workers_find_home_stores_data_and_trust_where_the_process_that_launched_them_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray runs already, and has the environment in which it was started."""
    monkeypatch.chdir(tmp_path)
    given = {
        "ONESTEP_HOME": str(tmp_path / "home"),
        "ONESTEP_ARTIFACTS": "s3://bucket",
        "ONESTEP_TRUST": "ours",
    }
    for name, value in {**given, "ONESTEP_DATA": "data"}.items():
        monkeypatch.setenv(name, value)
    values = recipe(
        {**NOTING, "note": str(tmp_path / "note.json")},
        steps=1,
        workers={**WORKERS, "num_workers": 1, "ray": True},
        storage={"tracking_uri": "http://mlflow:5000"},
    )
    experiment = Experiment.from_dict(values)
    train_with_ray(experiment, folder=tmp_path / "run", reporter=MemoryReporter())
    seen = json.loads((tmp_path / "note.json").read_text())
    given |= {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "ONESTEP_DATA": str(tmp_path / "data")}
    assert {name: seen.get(name) for name in given} == given


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    folder, kept = tmp_path / "run", {"checkpoint_every": 2 * BATCH, "keep_checkpoints": 9}
    method = {**DYING, "at": 6, "flag": str(tmp_path / "died")}
    values = recipe(method, steps=8, data=DIGITS, training=kept)
    one = Experiment.from_dict(values)
    two = Experiment.from_dict(values | {"workers": {**WORKERS, "max_failures": 0}})
    (tmp_path / "died").touch()
    whole, _ = train_here(values, folder)
    for step in (4, 6, 8):  # as if it had been killed after step 2
        shutil.rmtree(folder / "checkpoints" / f"step-{step:010d}")

    (tmp_path / "died").unlink()
    by_two = MemoryReporter()
    with pytest.raises(WorkersFailed):
        train(two, folder=folder, reporter=by_two)
    assert [row["step"] for row in by_two.rows] == [3, 4, 5, 6]

    by_one = MemoryReporter()
    last = train(one, folder=folder, reporter=by_one)
    assert by_one.rows[0]["step"] in (5, 7)  # Ray may not have noted the last one in time
    assert distance(state_at(last), whole) < 1e-10

    again = MemoryReporter()
    assert train(two, folder=folder, reporter=again) == last
    assert again.rows == []


@pytest.mark.slow
def test_a_run_that_was_killed_while_ray_wrote_its_list_goes_on_from_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    values = recipe(MEAN_FLOW, steps=6, data=DIGITS, training={"checkpoint_every": 2 * BATCH})
    alone, _ = train_here(values, tmp_path / "alone")
    experiment, folder = Experiment.from_dict(values | {"workers": WORKERS}), tmp_path / "run"
    train_with_ray(experiment, folder=folder, reporter=MemoryReporter(), until=4)
    list_of_ray = folder / "ray" / "run" / "checkpoint_manager_snapshot.json"
    list_of_ray.write_text(list_of_ray.read_text()[:100])
    reporter = MemoryReporter()
    last = train_with_ray(experiment, folder=folder, reporter=reporter)
    assert [row["step"] for row in reporter.rows] == [5, 6]
    assert distance(state_at(last), alone) < 1e-10


def test_the_head_is_asked_for_the_folder_where_no_node_has_what_workers_need(
    tmp_path: Path,
) -> None:
    needed = {"GPU": 1000.0}
    check_shared(tmp_path, needed=needed)
    here = os.open(tmp_path, os.O_RDONLY)
    alone = fcntl(here, F_DUPFD, 900)
    try:
        with pytest.raises(ValueError, match=r"^node .* does not see the folder /proc/self/fd/"):
            check_shared(Path(f"/proc/self/fd/{alone}"), needed=needed)
    finally:
        os.close(here)
        os.close(alone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_and_changes_nothing(tmp_path: Path) -> None:
    flag = tmp_path / "died"
    training = {"checkpoint_every": 2 * BATCH}
    method = {**DYING, "at": 4, "flag": str(flag)}
    dying = recipe(method, steps=6, data=DIGITS, training=training)
    last = train_with_ray(
        Experiment.from_dict(dying | {"workers": WORKERS}),
        folder=tmp_path / "run",
        reporter=MemoryReporter(),
    )
    assert flag.exists(), "nobody died"
    alone, _ = train_here(recipe(DYING, steps=6, data=DIGITS, training=training), tmp_path)
    assert distance(state_at(last), alone) < 1e-10


@pytest.mark.slow
def test_divergence_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    values = recipe(DYING, steps=30, lr=1e160, data=DIGITS, training={"clip_norm": 0.0})
    experiment = Experiment.from_dict(values | {"workers": {**WORKERS, "max_failures": 0}})
    with pytest.raises(TrainingDiverged, match=r"loss/online is (nan|inf) at step \d+; lower"):
        train_with_ray(experiment, folder=tmp_path / "run", reporter=MemoryReporter())


@final
class Hesitant:
    """Refuses the rows of some steps, and keeps the others.

    Args:
        refused: Their numbers.
    """

    def __init__(self, refused: set[int]) -> None:
        self.seen: list[int] = []
        self._refused = refused

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        self.seen.append(step)
        if step in self._refused:
            raise OSError(f"step {step} is refused")

    def close(self) -> None:
        """Nothing is held back."""


def put_rows(mailbox: Any, reporter: Hesitant, *, ending: Exception | None = None) -> None:
    """Rows of three steps, and of three more once they are reported, while they are forwarded."""
    end = time.monotonic() + 30.0
    with forwarding(mailbox, reporter):
        for step in (1, 2, 3):
            mailbox.put.remote({"loss/online": 1.0}, step)
        while len(reporter.seen) < 3 and time.monotonic() < end:
            time.sleep(0.1)
        assert reporter.seen == [1, 2, 3], "told while the training goes on"
        for step in (4, 5, 6):
            get(mailbox.put.remote({"loss/online": 1.0}, step))
        if ending is not None:
            raise ending


@pytest.mark.slow
def test_a_reporter_that_fails_sees_every_row_and_its_first_failure_is_raised() -> None:
    mailbox, reporter = mailbox_here(), Hesitant({2, 5})
    with pytest.raises(OSError, match="step 2 is refused"):
        put_rows(mailbox, reporter)
    assert reporter.seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_reporter_that_fails_does_not_hide_why_the_training_ended() -> None:
    mailbox, reporter = mailbox_here(), Hesitant({2, 5})
    with pytest.raises(WorkersFailed):
        put_rows(mailbox, reporter, ending=WorkersFailed("it gave up"))
    assert reporter.seen == [1, 2, 3, 4, 5, 6]


def die_while_forwarding(*, ending: Exception | None = None) -> None:
    """A mailbox is killed while its rows are forwarded."""
    mailbox = mailbox_here()
    with forwarding(mailbox, MemoryReporter()):
        get(mailbox.put.remote({"loss/online": 1.0}, 1))
        kill(mailbox)
        time.sleep(1.5)
        if ending is not None:
            raise ending


@pytest.mark.slow
def test_the_death_of_the_mailbox_is_told_once_and_when_all_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(MetricsLost, match=r"metrics were lost .*: repeat the run to go on"):
        die_while_forwarding()
    assert caplog.text.count("metrics are reported no longer") == 1


@pytest.mark.slow
def test_the_death_of_the_mailbox_does_not_hide_why_the_training_ended() -> None:
    with pytest.raises(WorkersFailed, match="it gave up"):
        die_while_forwarding(ending=WorkersFailed("it gave up"))
