"""The study: Optuna's record of a sweep, from which a killed sweep goes on."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from ..platform.file_system import is_on_network
from ..platform.lock import in_turn
from ..platform.password import hide_passwords
from ..platform.registry.address import address_of, file_of
from .objective import Mode, Objectives
from .record import UNTRIED, TrialRecord
from .remembered import RememberedStorage
from .settings import SweepSettings

_PATIENCE_S: Final = 60.0
"""How long another process may hold a SQLite file."""
_EXTRAS: Final = {"psycopg": "postgres"}
"""Extras of this package that bring the drivers of databases."""
_ENDED: Final = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)


def storage_url(settings: SweepSettings, root: Path) -> str:
    """URL of the database of a sweep.

    Args:
        settings: The sweep.
        root: Folder of the platform.
    """
    return settings.storage or f"sqlite:///{root / 'optuna.db'}"


def open_storage(url: str) -> RDBStorage:
    """Optuna's database; a SQLite file and its folder are made if they are missing.

    Args:
        url: SQLAlchemy URL.

    Returns:
        The database.

    Raises:
        ValueError: If the URL is none, its driver is not installed or nobody answers.
    """
    optuna.logging.set_verbosity(logging.WARNING)
    address = address_of(url)
    with _asking(url):
        if _is_file(address):
            return _open_file(url, file_of(str(address.database)))
        # A server, or what is on the way to it, ends connections that nobody has used for long.
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


def check_storage(url: str) -> None:
    """Ask a database for a sign of life before work begins; a file is asked when it is opened.

    Args:
        url: SQLAlchemy URL.

    Raises:
        ValueError: If the URL is none, its driver is not installed or nobody answers.
    """
    if _is_file(address_of(url)):
        return
    with _asking(url):
        engine = create_engine(url)
        engine.connect().close()
        engine.dispose()


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Turn what goes wrong at a database into one sentence."""
    said = f"Optuna's database at {hide_passwords(url)}"
    try:
        yield
    except OSError as error:
        raise ValueError(f"{said} cannot be opened: {error}; see sweep.storage") from error
    except (SQLAlchemyError, ImportError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ModuleNotFoundError) and cause.name in _EXTRAS:
            raise ValueError(
                f"{said} needs the package {cause.name}, which is not installed; install it with "
                f"pip install 'onestep[{_EXTRAS[cause.name]}]'"
            ) from error
        reason = hide_passwords(" ".join(str(cause).split()))[:300]
        raise ValueError(f"{said} does not answer: {reason}") from error


def _is_file(address: URL) -> bool:
    return bool(address.get_backend_name() == "sqlite" and address.database and not address.host)


def _open_file(url: str, file: Path) -> RDBStorage:
    file.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(file.with_name(f".{file.name}.lock")):  # two would make the same tables
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}})
    journal = _roll_back if is_on_network(file.parent) else _log_ahead
    event.listen(storage.engine, "connect", journal)
    event.listen(storage.engine, "begin", _same(file))
    storage.engine.dispose()  # the connection that made the tables was not asked
    return storage


def _same(file: Path) -> Callable[[Any], None]:
    """A check that a file is the one that it was: SQLite goes on writing into one that is gone."""
    inode = file.stat().st_ino

    def check(connection: Any) -> None:
        del connection
        try:
            is_same = file.stat().st_ino == inode
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise StorageInternalError(f"{file} is not the file that it was; bring that one back")

    return check


def _log_ahead(connection: Any, record: Any) -> None:
    """Let SQLite write into a log first, which is many times faster and as safe from a kill.

    The processes share memory for it, and so have to be on one machine.
    """
    del record
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _roll_back(connection: Any, record: Any) -> None:
    """Have SQLite keep what it replaces beside the file, which machines can share."""
    del record
    connection.execute("PRAGMA journal_mode=DELETE")  # also of a file that had a log before


def begin(storage: BaseStorage, name: str, objectives: Objectives) -> Study:
    """The study of a sweep, which is made if it is missing; no other process writes into it.

    Args:
        storage: Optuna's database, or what remembers it: studies that are read and written in
            turn share one of these.
        name: Name of the sweep.
        objectives: The numbers to improve.
    """
    least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    directions = [least if one.mode is Mode.MIN else most for one in objectives.all]
    study = optuna.create_study(
        storage=RememberedStorage(storage) if isinstance(storage, RDBStorage) else storage,
        study_name=name,
        directions=directions,
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        named = [f"{label}: {one}" for label, one in objectives.by_label.items()]
        study.set_metric_names(named)  # for Optuna's dashboard
    return study


def ended(study: Study) -> tuple[TrialRecord, ...]:
    """The trials that have ended, in the order of their numbers.

    Args:
        study: The study.

    Returns:
        Their records, without points that were suggested and not tried.
    """
    trials = study.get_trials(deepcopy=False)
    return tuple(TrialRecord.of(trial) for trial in trials if has_come_to_its_end(trial))


def has_come_to_its_end(trial: FrozenTrial) -> bool:
    """Whether a trial of a study has ended, and is more than a point that was suggested."""
    return trial.state in _ENDED and UNTRIED not in trial.user_attrs
