"""Outages: Optuna's database goes away while a sweep runs, which ends with one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from ..platform.password import hide_passwords

_ERRORS: Final = (SQLAlchemyError, StorageInternalError)


@final
class DatabaseGone(BaseException):
    """The database does not answer; the cause says why.

    It is no ``Exception``: Ray Tune would take one for the death of the trial that it is at, and
    try to tell the database of it.
    """


@contextmanager
def past_tune() -> Iterator[None]:
    """Let an outage pass through Ray Tune, which calls what is in the block.

    Yields:
        None: While the database answers.

    Raises:
        DatabaseGone: If it does not.
    """
    try:
        yield
    except _ERRORS as error:
        raise DatabaseGone from error


@contextmanager
def answering(url: str, *, name: str) -> Iterator[None]:
    """Turn an outage into one sentence.

    Args:
        url: URL of the database.
        name: Name of the sweep.

    Yields:
        None: While the database answers.

    Raises:
        ValueError: If it does not.
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


def _reason(error: BaseException) -> str:
    """The first line of what the driver of the database said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return hide_passwords(str(error)).partition("\n")[0][:300]
