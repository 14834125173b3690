"""A PostgreSQL server of a test's own, with a password."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

USER: Final = "ada"
PASSWORD: Final = "hunter2"
_WITHIN_S: Final = 120.0


def programs() -> Path | None:
    """Folder of the server's programs; Debian has them outside the search path."""
    found = shutil.which("initdb")
    places = [Path(found).resolve()] if found else Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((place.parent for place in places), default=None)


@final
@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        port: Where on this machine.
    """

    port: int

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """The URL of a database as a sweep takes it."""
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """The URL of a new database."""
        self.run(f"CREATE DATABASE {database}")
        return self.url(database)

    def run(self, statement: str) -> None:
        """Run a statement in a database of the server's own."""
        import psycopg  # an extra of the package

        url = self.url("postgres").replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def server() -> Iterator[Server]:
    """A server, for as long as the context lasts."""
    bin_ = programs()
    assert bin_ is not None, "a test that needs it is skipped where it is not installed"
    place, who = Path(tempfile.mkdtemp(prefix="os-pg-")), _owner()
    try:
        (place / "password").write_text(PASSWORD)
        if who:  # initdb refuses root
            for path in (place, place / "password"):
                shutil.chown(path, who["user"], who["group"])
        made = [bin_ / "initdb", "-D", place / "data", "-U", USER, "-A", "scram-sha-256", "-N"]
        subprocess.run(
            [*made, f"--pwfile={place / 'password'}"],
            check=True,
            capture_output=True,
            cwd=place,
            **who,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [bin_ / "postgres", "-D", place / "data", "-p", str(port), "-k", place, "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=place,
            **who,
        )
        try:
            yield _ready(Server(port), process)
        finally:
            process.send_signal(signal.SIGINT)  # it leaves its clients
            process.wait()
    finally:
        shutil.rmtree(place)


def _owner() -> dict[str, Any]:
    """Who the server runs as, for a new process; nothing for the user of this one."""
    if os.geteuid() != 0:
        return {}
    names = {one.pw_name for one in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_name, "group": user.pw_gid, "extra_groups": []}


def _ready(server: Server, process: subprocess.Popen[bytes]) -> Server:
    import psycopg

    end = time.monotonic() + _WITHIN_S
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            assert process.poll() is None, "the server does not start"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)
        else:
            return server
