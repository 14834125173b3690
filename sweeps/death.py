"""Deaths: whether a trial that failed raised an error of its own, or its process was killed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from ray import cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError

from ..platform.password import hide_passwords
from .record import ERROR

_LONGEST: Final = 300
_UNKNOWN: Final = "its process died"


class Failed(Protocol):
    """Of Ray Tune's trials what is asked here."""

    last_result: Mapping[str, Any] | None

    @property
    def pickled_error_file(self) -> str | None:
        """Where the error is as Ray raised it, if it is one of a task or an actor."""

    @property
    def error_file(self) -> str | None:
        """Where Ray Tune has written its text."""


def death_of(trial: Failed) -> str | None:
    """How the process of a trial died, or its node.

    The out-of-memory killer, a node that is lost, and Ray's own troubles are deaths: they say
    nothing of the trial, and it may go on elsewhere.

    Args:
        trial: Ray Tune's trial, which has failed.

    Returns:
        A sentence, or None if the trial's own code raised an error.
    """
    if ERROR in (trial.last_result or {}):  # it said so itself
        return None
    # Not what Ray Tune offers: it reads from the storage, to which these files come later.
    pickled, text = trial.pickled_error_file, trial.error_file
    error = cloudpickle.loads(Path(pickled).read_bytes()) if pickled else None
    if isinstance(error, RayActorError):
        return None if error.actor_init_failed else _last_line(str(error))
    if isinstance(error, RayTaskError):
        # An object of Ray that is lost with its node is raised where it is asked for.
        return _last_line(str(error.cause)) if isinstance(error.cause, RayError) else None
    return _last_line(Path(text).read_text() if text else "")


def _last_line(text: str) -> str:
    """What Ray puts last: before it stand the class and the ids."""
    lines = [line.strip() for line in hide_passwords(text).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else _UNKNOWN
