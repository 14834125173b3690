"""What a sweep remembers of a trial, kept with the trial in Optuna's database."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, final

from optuna.trial import FrozenTrial, TrialState

from .condition import Scalar

OVERRIDES: Final = "overrides"
INTERVAL: Final = "interval"
SAMPLES: Final = "samples"
STOPPED: Final = "stopped"
ERROR: Final = "error"
REPORT: Final = "report"
"""Key of the whole report, as JSON, in the last result of a trial."""


class Outcome(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """Ended early by the scheduler."""
    FAILED = "failed"


@final
@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial that has ended.

    Attributes:
        number: Its number in the study.
        overrides: The overrides that repeat it, without the passwords of stores.
        values: Value of each swept key.
        outcome: How it ended.
        value: The metric; None if it failed.
        interval: Interval of the metric at 95 %, or None.
        samples: Samples that it was trained on.
        error: Why it failed; empty otherwise.
    """

    number: int
    overrides: tuple[str, ...]
    values: Mapping[str, Scalar]
    outcome: Outcome
    value: float | None
    interval: tuple[float, float] | None
    samples: int
    error: str

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """The record of an ended trial of a study."""
        notes = trial.user_attrs
        outcome = Outcome.FAILED
        if trial.state == TrialState.COMPLETE:
            outcome = Outcome.STOPPED if notes.get(STOPPED) else Outcome.FINISHED
        interval = notes.get(INTERVAL)
        return cls(
            number=trial.number,
            overrides=tuple(notes.get(OVERRIDES, ())),
            values=dict(trial.params),
            outcome=outcome,
            value=None if outcome is Outcome.FAILED else trial.value,
            interval=None if interval is None else (interval[0], interval[1]),
            samples=int(notes.get(SAMPLES, 0)),
            error=str(notes.get(ERROR, "")),
        )

    @property
    def command(self) -> str:
        """The shell line that repeats the trial."""
        return command_line(self.overrides)


def report_file(folder: Path, number: int) -> Path:
    """Where the report on a trial lies in the folder of its sweep, if it was measured whole."""
    return folder / "trials" / f"{number}.json"


def command_line(overrides: tuple[str, ...]) -> str:
    """The shell line that trains with these overrides."""
    return shlex.join(["onestep", "train", *overrides])
