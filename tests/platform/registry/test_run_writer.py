import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import pytest
from mlflow.entities import Run

from onestep.platform.registry.connection import Connection
from onestep.platform.registry.errors import RegistryUnreachable
from onestep.platform.registry.run import EndedRun, Measurement, RunFacts
from onestep.platform.registry.run_writer import PROGRAM, RunWriter

_FACTS: Final = RunFacts(
    experiment="moons", name="first", config={"x": 2}, overrides=(), seed=0, data_digest="d"
)
_ENDED: Final = EndedRun(
    facts=_FACTS,
    tags={"onestep.outcome": "stopped"},
    measurements=[Measurement(step=3, metrics={"w2": 0.5}, at_ms=1)],
    texts={"said.txt": "as it is"},
    status="FINISHED",
)


def _named(name: str) -> EndedRun:
    return replace(_ENDED, facts=replace(_FACTS, name=name))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    return Connection(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


@pytest.fixture(scope="module")
def writer(store: Connection) -> Iterator[RunWriter]:
    with closing(RunWriter(store)) as made:
        yield made


def run_of(store: Connection, name: str) -> Run | None:
    """The run of a name, if there is one."""
    found = store.client.search_runs([store.experiment("moons")], f"run_name = '{name}'")
    assert len(found) < 2
    return found[0] if found else None


def the_child(process: psutil.Process | None = None) -> psutil.Process:
    (child,) = [one for one in (process or psutil.Process()).children() if PROGRAM in one.cmdline()]
    return child


def test_a_run_is_there_whole_when_it_has_been_written(
    store: Connection, writer: RunWriter
) -> None:
    writer.write(_ENDED)
    run = run_of(store, "first")
    assert run is not None
    assert run.info.status == "FINISHED"
    assert (run.data.params, run.data.metrics) == ({"x": "2"}, {"w2": 0.5})
    assert run.data.tags["onestep.outcome"] == "stopped"
    place = store.client.download_artifacts(run.info.run_id, "said.txt")
    assert Path(place).read_text() == "as it is"


def test_what_the_store_refuses_is_said_and_the_next_run_is_written(
    store: Connection, writer: RunWriter
) -> None:
    with pytest.raises(RuntimeError, match=r"Exception: .*no such status"):
        writer.write(replace(_named("refused"), status="no such status"))
    writer.write(_named("after"))
    assert run_of(store, "after") is not None


def test_a_process_that_was_killed_is_told_and_followed_by_another(
    store: Connection, writer: RunWriter
) -> None:
    writer.write(_named("before"))
    child = the_child()
    child.kill()
    with pytest.raises(RegistryUnreachable, match=r"^the process that writes runs has ended$"):
        writer.write(_named("lost"))
    writer.write(_named("second"))
    assert run_of(store, "lost") is None
    assert run_of(store, "second") is not None
    last = the_child()
    writer.close()
    assert not child.is_running()
    assert not last.is_running()


def test_a_store_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    connection = Connection(f"sqlite:///{folder / 'mlflow.db'}")
    away = folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    with closing(RunWriter(connection)) as writer:
        with pytest.raises(RegistryUnreachable, match="does not answer"):
            writer.write(_ENDED)
        folder.unlink()
        away.rename(folder)
        writer.write(_ENDED)
    assert run_of(connection, "first") is not None


_KILLED: Final = """
import sys
import time

from onestep.platform.registry.connection import Connection
from onestep.platform.registry.run_writer import RunWriter
from onestep.tests.platform.registry.test_run_writer import _ENDED

writer = RunWriter(Connection(sys.argv[1]))
writer.write(_ENDED)
print("written", flush=True)
time.sleep(60)
"""


def test_the_process_ends_with_the_one_that_asks_and_not_with_an_interrupt_of_its_terminal(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-c", _KILLED, uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"written\n"
        child = the_child(psutil.Process(asking.pid))
        assert os.getpgid(child.pid) != os.getpgid(asking.pid)
        asking.kill()
    child.wait(10)
