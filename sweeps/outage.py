"""Outages: a store goes away while a sweep runs, which ends with one sentence if it stays away."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from ..platform.password import hide_passwords
from ..platform.registry.errors import RegistryUnreachable
from ..platform.training.errors import FolderNotSeen

_ERRORS: Final = (SQLAlchemyError, StorageInternalError)
_OUTAGES: Final = (RegistryUnreachable, FolderNotSeen, OSError)
_OF_A_PATH: Final = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""Errors that say something of a path, and not of the disk that it is on."""


@final
class DatabaseGone(BaseException):
    """The database does not answer; the cause says why.

    It is no ``Exception``: Ray Tune would take one for the death of the trial that it is at, and
    try to tell the database of it.
    """


@final
class OutageLasts(BaseException):
    """Trials cannot go on, or the sweep cannot write into its folder; the message says why.

    It is no ``Exception`` for the same reason.
    """


def is_outage(error: BaseException, *, places: Sequence[Path]) -> bool:
    """Whether a trial failed by a store or a node, and not by what was tried.

    Args:
        error: What the trial raised.
        places: Folders of the sweep and its stores: a file that is missing or closed to the trial
            elsewhere is one that its own settings name.
    """
    if isinstance(error, _OUTAGES):
        return not (isinstance(error, _OF_A_PATH) and _is_elsewhere(error, places))
    # A checkpoint that cannot be read may be whole, but one of which a file is missing is not.
    cause = error.__cause__
    return isinstance(cause, _OUTAGES) and not isinstance(cause, FileNotFoundError)


def _is_elsewhere(error: OSError, places: Sequence[Path]) -> bool:
    """Whether an error names a file, and it lies in none of some folders."""
    if not isinstance(error.filename, str):
        return False
    file = Path(error.filename).resolve()
    return not any(file.is_relative_to(place.resolve()) for place in places)


@contextmanager
def past_tune() -> Iterator[None]:
    """Let an outage pass through Ray Tune, which calls what is in the block.

    Yields:
        None: While the database answers, and the folder of the sweep can be written.

    Raises:
        DatabaseGone: If the database does not answer.
        OutageLasts: If the folder cannot be written.
    """
    try:
        yield
    except _ERRORS as error:
        raise DatabaseGone from error
    except OSError as error:
        raise OutageLasts(f"{type(error).__name__}: {error}") from error


@contextmanager
def answering(url: str, *, name: str) -> Iterator[None]:
    """Turn an outage into one sentence.

    Args:
        url: URL of the database.
        name: Name of the sweep.

    Yields:
        None: While all stores answer.

    Raises:
        ValueError: If one does not.
    """
    try:
        yield
    except (*_ERRORS, DatabaseGone) as error:
        raise ValueError(
            f"Optuna's database at {hide_passwords(url)} does not answer any more: "
            f"{_reason(error)}; nothing that it was told is lost: when it answers again, "
            f"`onestep sweep --resume {name}` goes on, with the trials that were running from "
            "their last checkpoints"
        ) from error
    except OutageLasts as error:
        raise ValueError(
            f"{hide_passwords(str(error))}; no trial has failed by it, and nothing of the sweep is "
            f"lost: when the outage is over, `onestep sweep --resume {name}` goes on"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what the driver of the database said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return hide_passwords(str(error)).partition("\n")[0][:300]
