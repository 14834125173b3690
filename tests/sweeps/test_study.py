"""Optuna's database, which several processes of a machine open."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from onestep.sweeps.study import check_storage, open_storage
from onestep.tests.platform.test_file_system import mount

_OPENER: Final = """
import sys
from onestep.sweeps.study import open_storage

print("ready", flush=True)
sys.stdin.readline()
open_storage(sys.argv[1])
"""


def test_processes_that_open_a_new_database_at_the_same_moment_share_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPENER, f"sqlite:///{tmp_path / 'optuna.db'}"]
    openers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for one in openers:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
    for one in openers:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    for one in openers:
        one.communicate(timeout=120)
    assert [one.returncode for one in openers] == [0] * 2


def test_a_file_may_be_named_by_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a folder" / "optuna.db"
    open_storage(f"sqlite:///file:{quote(str(file))}?uri=true").get_all_studies()
    assert file.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a folder"]


def journal_of(file: Path) -> str:
    """What SQLite keeps beside a file, as whoever opens it finds it."""
    connection = sqlite3.connect(file)
    try:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()


def test_a_database_that_several_machines_see_has_no_log_that_they_would_have_to_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "optuna.db"

    def open_and_close() -> str:
        storage = open_storage(f"sqlite:///{file}")
        storage.get_all_studies()
        storage.engine.dispose()
        return journal_of(file)

    assert open_and_close() == "wal"
    mount(monkeypatch, [(tmp_path, "nfs4")])
    assert open_and_close() == "delete"


@pytest.mark.parametrize("ask", [check_storage, open_storage])
def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(
    ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    said = r"//ada:\*{3}@host/db needs the package psycopg, .* pip install 'onestep\[postgres\]'"
    with pytest.raises(ValueError, match=said):
        ask("postgresql+psycopg://ada:secret@host/db")


def test_a_file_that_cannot_be_made_is_told_by_its_database(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/optuna.db cannot be opened: .*sweep\.storage"):
        open_storage(f"sqlite:///{tmp_path / 'file' / 'optuna.db'}")
