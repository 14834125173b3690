import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from onestep.platform.registry.connection import Connection, check_tracking
from onestep.platform.registry.errors import RegistryUnreachable
from onestep.platform.registry.run import Run
from onestep.tests.platform.registry.contract import facts


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens: it is bound, so that nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def failing_server() -> Iterator[str]:
    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("kind", ["http://127.0.0.1", "postgresql://ada:secret@127.0.0.1"])
def test_a_store_that_refuses_the_connection_is_refused_in_one_sentence(kind, closed_port):
    with pytest.raises(RegistryUnreachable) as caught:
        check_tracking(f"{kind}:{closed_port}", artifacts="/nowhere")
    message = str(caught.value)
    assert "does not answer: " in message
    assert "refused" in message
    assert str(closed_port) in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_server_that_fails_is_refused_in_one_sentence(failing_server):
    with pytest.raises(RegistryUnreachable, match="does not answer: HTTP status 503"):
        check_tracking(failing_server)


def test_a_server_that_goes_away_is_told_in_one_sentence(closed_port, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    connection = Connection(f"http://127.0.0.1:{closed_port}")
    with pytest.raises(RegistryUnreachable, match="does not answer: ") as caught:
        Run.start(connection, facts("digits"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryUnreachable, match="does not answer: "):
        check_tracking(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("something else, long enough to be no header of a database")
    with pytest.raises(RegistryUnreachable, match="does not answer: "):
        check_tracking(f"sqlite:///{path}")
    assert path.read_text().startswith("something else")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host", "tracking URI must begin with sqlite:///"),
        ("/a/folder", "tracking URI must begin with sqlite:///"),
        ("sqlite://", "tracking URI must name a database file"),
        ("postgresql://host/db", "needs a place for artifacts: set ONESTEP_ARTIFACTS"),
    ],
)
def test_a_store_of_another_kind_is_refused(uri, message):
    with pytest.raises(ValueError, match=message):
        check_tracking(uri)


@pytest.mark.parametrize("uri", ["redis://ada:secret@host/0", "sqlite://?password=secret"])
def test_a_store_of_another_kind_is_named_without_its_password(uri):
    with pytest.raises(ValueError, match=r"got '.*\*\*\*") as caught:
        check_tracking(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ada:sec/ret@127.0.0.1:1",
        "postgresql://ada@server:secret@127.0.0.1:1",
        "postgresql://ada:sec@ret@127.0.0.1",
        "postgresql://ada:sec@ret:7x@127.0.0.1",
        "http://ada:sec/ret@127.0.0.1:1",
        "http://ada:sec[ret@127.0.0.1:1",
        "https://ada:sec\u2100ret@127.0.0.1:1",
    ],
)
def test_no_part_of_a_password_is_taken_for_a_host_or_a_port_and_shown(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=r":\*\*\*@127.0.0.1") as caught:
        check_tracking(uri, artifacts="/nowhere")
    said = str(caught.value).partition("got ")[0]
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)
    assert "\n" not in said


def test_a_store_that_answers_passes(local_registry):
    check_tracking(local_registry().connection.tracking_uri)


def test_an_experiment_is_made_once(local_registry):
    first, second = local_registry().connection, local_registry().connection
    assert first.experiment("digits") == second.experiment("digits")


@pytest.mark.slow
def test_processes_that_meet_a_new_database_together_do_so_quietly(tmp_path):
    path = tmp_path / "new" / "mlflow.db"
    program = f"""
from onestep.platform.registry.connection import Connection
print(Connection("sqlite:///{path}").experiment("digits"))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate() for process in processes]
    assert [answer[1] for answer in answers] == ["", ""]
    assert answers[0] == answers[1]
    with sqlite3.connect(path) as database:
        rows = database.execute("select artifact_location from experiments where name = 'digits'")
        assert [Path(row[0]) for row in rows] == [path.parent / "artifacts" / "digits"]
    database.close()


def test_a_file_may_be_named_by_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder where it takes the URI for a path
    folder = tmp_path / "store"
    store = Connection(f"sqlite:///file:{folder / 'mlflow.db'}?uri=true")
    made = store.client.get_experiment(store.experiment("digits"))
    assert (folder / "mlflow.db").exists()
    assert made.artifact_location == str(folder / "artifacts" / "digits")
