"""A sweep whose study is kept by a PostgreSQL server."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from onestep.sweeps.study import check_storage, open_storage
from onestep.tests.sweeps.postgresql import PASSWORD, USER, Server, programs, server

_COMMAND: Final = (
    "sweep",
    "resume=auto",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=16",
    "training.samples=25600",
    "training.batch_size=64",
    "training.checkpoint_every=1280",
    "evaluation.nfes=[1]",
    "evaluation.samples=64",
    "sweep.trials=3",
    "sweep.concurrency=1",
    "sweep.startup=1",
)
_WITHIN_S: Final = 1800.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="initdb of PostgreSQL is not installed"),
    pytest.mark.skipif(find_spec("psycopg") is None, reason="the extra postgres is not installed"),
]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with server() as running:
        yield running


def test_a_server_that_refuses_is_told_in_one_sentence_without_the_password(
    postgresql: Server,
) -> None:
    check_storage(postgresql.url("postgres"))
    wrong = postgresql.url("postgres", password="hunter3")
    for url, said in (
        (wrong, f'password authentication failed for user "{USER}"'),
        (postgresql.url("missing"), 'database "missing" does not exist'),
        (Server(1).url("postgres"), "Connection refused"),
    ):
        with pytest.raises(ValueError, match=f"{USER}:[*]{{3}}@.* does not answer: .*{said}") as it:
            check_storage(url)
        assert "hunter" not in str(it.value)


def test_a_password_may_stand_in_a_file_of_postgresql(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.make("by_file").replace(f":{PASSWORD}@", "@")
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    with pytest.raises(ValueError, match="no password supplied"):
        check_storage(url)
    file.write_text(f"127.0.0.1:{postgresql.port}:by_file:{USER}:{PASSWORD}\n")
    file.chmod(0o600)
    check_storage(url)
    with opened(url) as storage:
        assert optuna.create_study(storage=storage).trials == []


def test_a_study_outlives_its_connections(postgresql: Server) -> None:
    with opened(postgresql.make("idle")) as storage:
        study = optuna.create_study(storage=storage)
        postgresql.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'idle'"
        )
        study.set_user_attr("key", "value")
        assert study.user_attrs == {"key": "value"}


@pytest.mark.ray
def test_a_sweep_that_is_killed_goes_on_from_the_server_and_shows_its_password_to_nobody(
    postgresql: Server, tmp_path: Path
) -> None:
    url, home = postgresql.make("optuna"), tmp_path / "home"
    home.mkdir()
    sweep = [*_COMMAND, f"sweep.storage='{url}'"]
    killed = start(home, *sweep)
    end = time.monotonic() + _WITHIN_S
    while not list(home.glob("sweeps/*/trials/1/checkpoints/step-*")):
        assert killed.poll() is None, (home / "said").read_text()
        assert time.monotonic() < end, "a checkpoint was waited for in vain"
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    _, before = study_at(url)
    assert [one.state for one in before] == [TrialState.COMPLETE, TrialState.RUNNING]

    assert start(home, *sweep).wait(timeout=_WITHIN_S) == 0, (home / "said").read_text()
    name, after = study_at(url)
    assert after[0] == before[0]
    assert after[1].params == before[1].params
    assert [one.state for one in after] == [TrialState.COMPLETE] * 3
    said = (home / "said").read_text()
    assert "1 ended before, 1 go on" in said
    assert f"optuna-dashboard postgresql+psycopg://{USER}:***@127.0.0.1" in said

    (folder,) = (home / "sweeps").glob("[!.]*")
    (folder / "report.html").unlink()
    assert start(home, "sweep", "report", name).wait(timeout=_WITHIN_S) == 0
    assert "trial 2" in (folder / "report.html").read_text().lower()
    files = [path for path in home.rglob("*") if path.is_file()]
    holding = [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert holding == [folder / "sweep.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


def start(home: Path, *command: str) -> subprocess.Popen[str]:
    """A command in a process of its own; what it says is in a file of its home."""
    known = {name: it for name, it in os.environ.items() if not name.startswith("RAY_")}
    with (home / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "onestep.platform.cli", *command],
            env={
                **known,
                "ONESTEP_HOME": str(home),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_raylet_start_wait_time_s": "1800",
            },
            cwd=home,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def study_at(url: str) -> tuple[str, list[FrozenTrial]]:
    """Name and trials of the only study of a database."""
    with opened(url) as storage:
        (found,) = storage.get_all_studies()
        study = optuna.load_study(study_name=found.study_name, storage=storage)
        return found.study_name, study.get_trials()


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    """A storage whose connections are closed in the end."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
