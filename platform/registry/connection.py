"""The door to MLflow: quiet, bounded in time, and one sentence when nobody answers."""

import fcntl
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

import httpx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SADeprecationWarning, SQLAlchemyError

from ..password import hide_passwords
from .address import address_of, file_of
from .errors import ReferenceNotFound, RegistryUnreachable

_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_TIMEOUT_S: Final = 4.0
_ANSWERS: Final = frozenset(
    {
        "RESOURCE_DOES_NOT_EXIST",
        "RESOURCE_ALREADY_EXISTS",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "BAD_REQUEST",
    }
)


@final
class Connection:
    """A client of one MLflow store, with no state of the process behind it.

    Opening a local file makes it and its folder if they are missing. One that is pickled is opened
    again where it is read.

    Args:
        tracking_uri: Store of runs and models: sqlite, postgresql, mysql, mssql, http or https.
        artifacts: Where artifacts of new experiments go; None for the folder `artifacts` beside
            a SQLite file. A server decides by itself.

    Raises:
        ValueError: If the URI is of another kind, or a store that is no server has no artifacts.
        RegistryUnreachable: If a database does not answer. A server is first asked when used.
    """

    def __init__(self, tracking_uri: str, *, artifacts: str | None = None) -> None:
        self.tracking_uri = tracking_uri
        self._artifacts: str | None = artifacts
        kind = _kind(tracking_uri)
        if kind == "sqlite":
            self._artifacts = artifacts or str(_database(tracking_uri).parent / "artifacts")
        elif kind in ("http", "https"):
            self._artifacts = None
        elif artifacts is None:
            raise ValueError(
                f"a {kind} store needs a place for artifacts: set ONESTEP_ARTIFACTS to a folder "
                f"or URI that all machines reach"
            )
        with self.asking():
            self.client = _open(tracking_uri, kind)

    def __reduce__(self) -> tuple[Callable[[], "Connection"], tuple[()]]:
        return partial(Connection, self.tracking_uri, artifacts=self._artifacts), ()

    @contextmanager
    def asking(self, *, missing: str | None = None) -> Iterator[None]:
        """Turn what goes wrong at the store into one sentence.

        Args:
            missing: What to say if the store answers that something does not exist; None to pass
                this answer on.

        Yields:
            None: Nothing.

        Raises:
            ReferenceNotFound: If something does not exist.
            RegistryUnreachable: If the store does not answer.
            MlflowException: Any other answer, unchanged.
        """
        try:
            yield
        except MlflowException as error:
            if missing is not None and _is_missing(error):
                raise ReferenceNotFound(missing) from error
            if error.error_code in _ANSWERS:
                raise
            raise _unreachable(self.tracking_uri, error) from error
        except (SQLAlchemyError, ConnectionError) as error:
            raise _unreachable(self.tracking_uri, error) from error

    def experiment(self, name: str) -> str:
        """Identifier of the MLflow experiment of this name, made if it is missing."""
        with self.asking():
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            try:
                location = None if self._artifacts is None else f"{self._artifacts}/{name}"
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                # Another process made it between our two calls.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
                return str(found.experiment_id)


def check_tracking(tracking_uri: str, *, artifacts: str | None = None) -> None:
    """Ask a store for a sign of life, within a few seconds, before work begins.

    Args:
        tracking_uri: Store of runs and models.
        artifacts: Where artifacts go, as `Connection` takes it.

    Raises:
        ValueError: If the URI is of no known kind.
        RegistryUnreachable: If nobody answers, or not as MLflow does.
    """
    connection = Connection(tracking_uri, artifacts=artifacts)
    if _kind(tracking_uri) in ("http", "https"):
        _check_server(tracking_uri)
    with connection.asking():
        connection.client.search_experiments(max_results=1)


def _kind(tracking_uri: str) -> str:
    scheme, found, _ = tracking_uri.partition("://")
    kind = scheme.partition("+")[0] if found else ""
    if kind in ("sqlite", "http", "https", *_PORTS):
        return kind
    raise ValueError(
        f"tracking URI must begin with sqlite:///, postgresql://, mysql://, mssql://, http:// or "
        f"https://, got {hide_passwords(tracking_uri)!r}"
    )


def _database(tracking_uri: str) -> Path:
    path = tracking_uri.partition("://")[2].partition("?")[0].removeprefix("/")
    if not path:
        raise ValueError(
            f"tracking URI must name a database file, got {hide_passwords(tracking_uri)!r}"
        )
    return file_of(path).absolute()


def _open(tracking_uri: str, kind: str) -> MlflowClient:
    if kind in _PORTS:
        _check_port(tracking_uri, _PORTS[kind])
    if kind in ("http", "https"):
        _check_web_address(tracking_uri)
    if kind != "sqlite":
        return _client(tracking_uri)
    database = _database(tracking_uri)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may meet a new file at once; only one may create its tables.
        with (database.parent / f".{database.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.access(database if database.exists() else database.parent, os.W_OK):
                raise PermissionError("the file is not writable")
            return _client(tracking_uri)
    except OSError as error:
        raise _unreachable(tracking_uri, error) from error


def _client(tracking_uri: str) -> MlflowClient:
    with warnings.catch_warnings():
        # MLflow's own mapping of its tables uses a part of SQLAlchemy that is going away.
        warnings.simplefilter("ignore", SADeprecationWarning)
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _check_port(tracking_uri: str, port: int) -> None:
    """Knock before MLflow does, which would try ten times with growing pauses."""
    address = address_of(tracking_uri)
    try:
        socket.create_connection(
            (address.host or "localhost", address.port or port), timeout=_TIMEOUT_S
        ).close()
    except OSError as error:
        raise _unreachable(tracking_uri, error) from error


def _check_web_address(tracking_uri: str) -> None:
    try:
        is_valid = bool(httpx.URL(tracking_uri).host) and urlsplit(tracking_uri).port != 0
    except (httpx.InvalidURL, ValueError):
        is_valid = False  # the error may hold a part of the password
    if not is_valid:
        raise ValueError(
            "tracking URI must be a web address such as https://user:password@host:5000, with "
            f"other signs than letters and digits percent-encoded, got "
            f"{hide_passwords(tracking_uri)!r}"
        )


def _check_server(tracking_uri: str) -> None:
    try:
        answer = httpx.get(f"{tracking_uri.rstrip('/')}/health", timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise _unreachable(tracking_uri, error) from error
    if answer.is_server_error:
        raise RegistryUnreachable(
            f"the MLflow store at {hide_passwords(tracking_uri)} does not answer: "
            f"HTTP status {answer.status_code}"
        )


def _unreachable(tracking_uri: str, error: Exception) -> RegistryUnreachable:
    reason = hide_passwords(" ".join((str(error) or type(error).__name__).split()))
    return RegistryUnreachable(
        f"the MLflow store at {hide_passwords(tracking_uri)} does not answer: {reason[:300]}"
    )


def _is_missing(error: MlflowException) -> bool:
    """Whether something does not exist; of an alias MLflow says so by another code."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    )
