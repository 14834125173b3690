"""The study: Optuna's record of a sweep, from which a killed sweep goes on."""

import logging
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from ..platform.password import hide_passwords
from ..platform.registry.address import address_of
from .record import TrialRecord
from .settings import SweepSettings

_INTERRUPTED: Final = "interrupted"
_REPEATS: Final = "repeats"
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
    try:
        if address.get_backend_name() == "sqlite" and address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError) as error:
        reason = hide_passwords(" ".join(str(error.__cause__ or error).split()))[:300]
        raise ValueError(
            f"Optuna's database at {hide_passwords(url)} does not answer: {reason}"
        ) from error


def ended(study: Study) -> tuple[TrialRecord, ...]:
    """The trials that ended by themselves, in the order of their numbers.

    Args:
        study: The study.

    Returns:
        Their records, without trials that an interruption of the sweep cut off.
    """
    cut_off = set(study.user_attrs.get(_INTERRUPTED, ()))
    return tuple(
        TrialRecord.of(trial)
        for trial in study.get_trials(deepcopy=False, states=_ENDED)
        if trial.number not in cut_off
    )


def requeue_orphans(study: Study) -> int:
    """Close the trials that were running when the sweep was killed, and ask for them again.

    Args:
        study: The study; no process works on it.

    Returns:
        How many there were.
    """
    orphans = study.get_trials(states=(TrialState.RUNNING,))
    repeated = {trial.user_attrs.get(_REPEATS) for trial in study.get_trials(deepcopy=False)}
    for orphan in orphans:
        # Closed last: if this is cut off in turn, the trial is still running and is seen again.
        noted = study.user_attrs.get(_INTERRUPTED, [])
        study.set_user_attr(_INTERRUPTED, sorted({*noted, orphan.number}))
        # What it says it repeats is written with the new trial at once, so that there is one only.
        if orphan.params and orphan.number not in repeated:
            repeats = {_REPEATS: orphan.number}
            study.enqueue_trial(orphan.params, user_attrs=repeats, skip_if_exists=False)
        study.tell(orphan.number, state=TrialState.FAIL)
    return len(orphans)
