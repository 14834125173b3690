import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import pytest

from onestep.platform.registry.connection import Connection
from onestep.platform.registry.errors import RegistryUnreachable
from onestep.platform.registry.run import Run, RunFacts
from onestep.platform.registry.store import Registry
from onestep.platform.training.mlflow_reporter import MlflowReporter
from onestep.platform.training.reporter import (
    ManyReporters,
    MemoryReporter,
    WandbReporter,
    check_wandb,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def connection(local_registry: Callable[[], Registry]) -> Connection:
    return local_registry().connection


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Run(Connection("http://127.0.0.1:9"), "a" * 32)  # nobody listens on port 9


@pytest.fixture
def run(connection: Connection) -> Run:
    facts = RunFacts(
        experiment="digits", name="a run", config={}, overrides=(), seed=0, data_digest="d"
    )
    return Run.start(connection, facts)


def curve(connection: Connection, run: Run, metric: str) -> list[tuple[int, float]]:
    points = connection.client.get_metric_history(run.run_id, metric)
    return [(point.step, point.value) for point in points]


def test_memory_keeps_everything():
    reporter = MemoryReporter()
    reporter.report({"loss/total": 2.0}, step=1)
    reporter.report({"loss/total": 1.0}, step=2, checkpoint=Path("/a"))
    assert reporter.rows == [{"step": 1, "loss/total": 2.0}, {"step": 2, "loss/total": 1.0}]
    assert reporter.checkpoints == [Path("/a")]


def test_mlflow_is_called_once_in_a_while_and_at_the_end(connection, run):
    clock = Clock()
    reporter = MlflowReporter(run, every_s=10.0, clock=clock)
    reporter.report({"loss/total": 3.0}, step=1)
    clock.now = 9.9
    reporter.report({"loss/total": 2.0}, step=2)
    assert curve(connection, run, "loss/total") == []
    clock.now = 10.0
    reporter.report({"loss/total": 1.0}, step=3)
    assert curve(connection, run, "loss/total") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    reporter.report({"loss/total": 0.5, "time/step_s": 0.1}, step=4)
    assert len(curve(connection, run, "loss/total")) == 3
    reporter.close()
    assert curve(connection, run, "loss/total")[3:] == [(4, 0.5)]
    assert curve(connection, run, "time/step_s") == [(4, 0.1)]


def test_more_reports_than_one_call_takes_all_arrive(connection, run):
    reporter = MlflowReporter(run, every_s=1e9)
    for step in range(1100):
        reporter.report({"loss/total": float(step)}, step=step)
    reporter.close()
    assert curve(connection, run, "loss/total") == [(n, float(n)) for n in range(1100)]


def test_a_store_that_is_away_holds_reports_back_and_fails_at_the_end_only(caplog, away):
    clock = Clock()
    reporter = MlflowReporter(away, every_s=1.0, clock=clock)
    clock.now = 1.0
    reporter.report({"loss/total": 1.0}, step=1)
    assert "1 reports held back" in caplog.text
    clock.now = 3.9  # the pause has grown to three seconds
    reporter.report({"loss/total": 1.0}, step=2)
    assert "2 reports held back" not in caplog.text
    with pytest.raises(RegistryUnreachable, match="does not answer"):
        reporter.close()


def test_wandb_writes_its_file_here_without_being_asked_to_log_in(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    uri = "mysql://ada:secret@host/db"
    monkeypatch.setattr("sys.argv", ["onestep", "train", f"storage.tracking_uri={uri}"])
    config = {"seed": 1, "storage": {"tracking_uri": uri}}
    reporter = WandbReporter(
        folder=tmp_path / "new",
        project="onestep",
        name="a run",
        run_id="abc",
        config=config,
        group="a-sweep",
    )
    reporter.report({"loss/total": 0.123}, step=1)
    folder = reporter.folder
    reporter.close()
    (file,) = folder.glob("*.wandb")
    assert folder.name.startswith("offline-run-")
    assert folder.name.endswith("-abc")
    # Its service, a process of its own, sometimes writes the last bytes just after the run's end.
    give_up_at = time.monotonic() + 30.0
    while b"loss/total" not in file.read_bytes() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert b"loss/total" in file.read_bytes()
    assert b"mysql://ada:***@host/db" in file.read_bytes()
    assert b"a-sweep" in file.read_bytes()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path


def test_an_error_is_not_hidden_by_a_store_that_cannot_note_it(caplog, away):
    with pytest.raises(ZeroDivisionError), away:
        raise ZeroDivisionError
    assert "could not be marked as FAILED" in caplog.text


def test_wandb_without_a_login_is_refused_in_one_sentence(tmp_path, monkeypatch):
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    refusal = "got WANDB_MODE=online and: No API key configured"
    with pytest.raises(ValueError, match=refusal):
        check_wandb()
    with pytest.raises(ValueError, match=refusal):
        WandbReporter(folder=tmp_path, project="onestep", name="a run", run_id="abc", config={})


def test_wandb_that_needs_no_login_is_not_asked_for_one(monkeypatch):
    for mode in ("", "offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        check_wandb()


def test_many_reporters_hear_the_same():
    first, second = MemoryReporter(), MemoryReporter()
    reporter = ManyReporters([first, second])
    reporter.report({"loss/total": 1.0}, step=1, checkpoint=Path("/a"))
    reporter.close()
    assert first.rows == second.rows == [{"step": 1, "loss/total": 1.0}]
    assert first.checkpoints == second.checkpoints == [Path("/a")]


def test_a_reporter_that_fails_to_close_does_not_keep_the_others_open(connection, run, away):
    failing = MlflowReporter(away)
    sending = MlflowReporter(run, every_s=1e9)
    reporter = ManyReporters([failing, sending])
    reporter.report({"loss/total": 1.0}, step=1)
    with pytest.raises(RegistryUnreachable):
        reporter.close()
    assert curve(connection, run, "loss/total") == [(1, 1.0)]


@final
class Refusing:
    """Takes nothing."""

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        raise OSError(f"step {step} is refused")

    def close(self) -> None:
        """Nothing is held back."""


def test_a_reporter_that_fails_does_not_keep_a_row_from_the_others() -> None:
    before, after = MemoryReporter(), MemoryReporter()
    with pytest.raises(OSError, match="step 1 is refused"):
        ManyReporters([before, Refusing(), after]).report({"loss/total": 1.0}, step=1)
    assert before.rows == after.rows == [{"step": 1, "loss/total": 1.0}]
