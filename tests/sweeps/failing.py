"""Trials that fail, each in its own way."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from onestep.sweeps.record import RESULTS, SAMPLES
from onestep.sweeps.searcher import NUMBER, REPORT
from onestep.sweeps.stepped import Row, Tell

RAISES: Final = 1
DIES_ONCE: Final = 2
DIES: Final = 3


@final
@dataclass(frozen=True, kw_only=True)
class FailedTrial:
    """What Ray Tune tells its scheduler of a trial that failed."""

    config: Mapping[str, Any]
    last_result: Mapping[str, Any]
    pickled_error_file: str | None
    error_file: str | None


def failed_trial(
    folder: Path, config: Mapping[str, Any], error: Exception, last: Mapping[str, Any] | None = None
) -> FailedTrial:
    """A trial that failed; as by Ray Tune, errors of tasks and actors alone are pickled.

    Args:
        folder: Where the files are written.
        config: What the searcher suggested.
        error: What Ray raised.
        last: What the trial reported last.
    """
    text, pickled = folder / "error.txt", folder / "error.pkl"
    text.write_text(f"Failure # 1 (occurred at noon)\n{error}\n")
    is_pickled = isinstance(error, RayTaskError | RayActorError)
    if is_pickled:
        pickled.write_bytes(cloudpickle.dumps(error))
    return FailedTrial(
        config=config,
        last_result=last or {},
        pickled_error_file=str(pickled) if is_pickled else None,
        error_file=str(text),
    )


def fail_by_number(config: Mapping[str, Any], *, tell: Tell, folder: str) -> Row:
    """A trial of which the number says how it fails; the others train nothing and end well.

    Args:
        config: What the searcher suggested.
        tell: Told nothing.
        folder: Where those that die say so first.

    Returns:
        The last row.
    """
    del tell
    number, times = config[NUMBER], len(list(Path(folder).glob(f"{config[NUMBER]}-*")))
    if number == RAISES:
        raise RuntimeError("no such thing")
    if number == DIES or (number == DIES_ONCE and not times):
        Path(folder, f"{number}-{times}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    value = float(number)
    return {SAMPLES: 1000, RESULTS: [[value, value, value]], REPORT: "{}"}
