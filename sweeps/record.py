"""What a sweep remembers of a trial, kept with the trial in Optuna's database."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self, final

from optuna.trial import FrozenTrial, TrialState

from .condition import Scalar
from .cost import NOTHING, Cost
from .lineage import LINEAGE, Lineage
from .objective import Number
from .space import override

OVERRIDES: Final = "overrides"
RESULTS: Final = "results"
SAMPLES: Final = "samples"
STOPPED: Final = "stopped"
"""Why a trial was ended early."""
ERROR: Final = "error"
COST: Final = "cost"
COSTS: Final = "costs"
"""What each rung of a trial took, where rungs are runs of their own."""
CURVE: Final = "curve"
"""Objectives of a trial by samples, as the study would have them, which takes one only."""
RUNG: Final = "rung"
"""The rung of a trial whose rungs are runs of their own."""
DIVERGED: Final = "diverged"
"""Whether a trial failed by what it was trained with, and not by what it ran on."""
RETURNS: Final = "returns"
"""Each return of the guardian to an earlier checkpoint: from which step to which, and why."""
DEATHS: Final = "deaths"
"""How the processes of a trial died that were killed, one sentence each."""
OUTAGE: Final = "outage"
"""Key of the outage of a store that a trial has met, in what it reports."""
OUTAGES: Final = "outages"
"""How often a trial has met one without getting further, and from how many samples on."""
WENT_BACK: Final = "went_back"
"""Key of the samples from which a trial goes on that its guardian sent back, in what it reports."""
ORIGIN: Final = "origin"
"""Where the point of a trial comes from, if it was good elsewhere."""
CHOSEN: Final = "chosen"
"""The post-hoc setting that a trial is judged in, and what it gives as it was trained."""
AS_TRAINED_FILE: Final = "as_trained.json"
SECONDS_FILE: Final = "seconds.json"
"""What a trial has taken up to its last checkpoint."""
REVISIONS: Final = "revisions"
"""The code that a trial was trained with: several, if it went on with another."""
UNTRIED: Final = "untried"
"""Why a point that was suggested is no trial."""


class Outcome(StrEnum):
    """How a trial ended, or that it has not."""

    FINISHED = "finished"
    UNDERWAY = "underway"
    """Measured at a rung that is a run of its own; it waits there, or runs at the next."""
    STOPPED = "stopped"
    """Ended early by the scheduler."""
    FAILED = "failed"


@final
@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial that has ended, or was measured at a rung that is a run of its own.

    Attributes:
        number: Its number in the study.
        overrides: The overrides that repeat it, without the passwords of stores.
        values: Value of each swept key.
        outcome: How it ended.
        results: The objectives in their order; none if it failed.
        samples: Samples that it was trained on.
        cost: What it took.
        rung: The rung that it came to, where rungs are runs of their own; otherwise None.
        chosen: Number of the sub-trial in whose setting it is judged; 0 as it was trained.
        posthoc: The point of the post-hoc space of this setting.
        said: The setting in words; empty where none were tried.
        as_trained: The objectives as it was trained, on the same data; none where this failed.
        reason: Why it failed or was stopped, or how far it is; empty of one that finished.
        returns: The returns to earlier checkpoints by its guardian: ``step``, ``to``,
            ``lr_factor`` and ``why``.
        deaths: How its processes died that were killed; each but the last allowed was followed by
            another.
        lineage: Its place in a population; None where there is none.
        revisions: Revisions of the code that it was trained with, in turn; none if nobody knows.
    """

    number: int
    overrides: tuple[str, ...]
    values: Mapping[str, Scalar]
    outcome: Outcome
    results: tuple[Number, ...]
    samples: int
    cost: Cost
    reason: str
    returns: tuple[Mapping[str, Any], ...] = ()
    deaths: tuple[str, ...] = ()
    rung: int | None = None
    chosen: int = 0
    posthoc: Mapping[str, Scalar] = field(default_factory=dict)
    said: str = ""
    as_trained: tuple[Number, ...] = ()
    lineage: Lineage | None = None
    revisions: tuple[str, ...] = ()

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """The record of a trial of a study that has ended, or of one at the rung that it passed."""
        notes, own = trial.user_attrs, tuple(trial.user_attrs.get(OVERRIDES, ()))
        outcome, rung = Outcome.FAILED, notes.get(RUNG)
        reason = str(notes.get(STOPPED, "") or notes.get(ERROR, ""))
        if STOPPED in notes:
            outcome = Outcome.STOPPED
        elif trial.state == TrialState.COMPLETE:
            outcome = Outcome.FINISHED
        elif has_passed_a_rung(trial):
            # The lowest that it ran at, and one for each that it passed since.
            outcome, rung = Outcome.UNDERWAY, min(map(int, notes[COSTS])) + len(notes[CURVE]) - 1
            planned = max(map(int, notes[CURVE]))
            reason = f"so far a run of {planned:,} samples"
            own = (*own[:-1], override("training.samples", planned))  # not those of the next run
        measured = () if ERROR in notes else notes.get(RESULTS, ())
        chosen = notes.get(CHOSEN, {})
        return cls(
            number=trial.number,
            overrides=own,
            values=dict(trial.params),
            outcome=outcome,
            results=_numbers(measured),
            samples=int(notes.get(SAMPLES, 0)),
            cost=Cost(**notes.get(COST, {})),
            returns=_returns(notes.get(RETURNS, ())),
            deaths=tuple(notes.get(DEATHS, ())),
            rung=rung,
            chosen=int(chosen.get("place", 0)),
            posthoc=dict(chosen.get("values", {})),
            said=str(chosen.get("said", "")),
            as_trained=_numbers(chosen.get("as_trained", ())),
            lineage=Lineage.from_dict(notes[LINEAGE]) if LINEAGE in notes else None,
            # Those of a run that goes on say nothing of the one before.
            revisions=tuple(notes.get(REVISIONS, ())) if rung == notes.get(RUNG) else (),
            reason=reason,
        )

    @property
    def died(self) -> str:
        """How often its process died, in words; nothing if it did not."""
        count = len(self.deaths)
        return f"its process died {count} time{'s' * (count > 1)}" if count else ""

    @property
    def remark(self) -> str:
        """What tables say beside its outcome."""
        return "; ".join(filter(None, [self.reason, self.went_back, self.died]))

    @property
    def went_back(self) -> str:
        """The returns by its guardian, in words; nothing if there were none."""
        return "; ".join(
            f"went back from step {one['step']} to {one['to']}, learning rate times "
            f"{one['lr_factor']:g}: {one['why']}"
            for one in self.returns
        )

    @property
    def command(self) -> str:
        """The shell line that repeats the trial."""
        return command_line(self.overrides)


def has_passed_a_rung(trial: FrozenTrial) -> bool:
    """Whether a trial that has not ended was measured at a rung that is a run of its own."""
    is_measured = RUNG in trial.user_attrs and CURVE in trial.user_attrs
    return trial.state == TrialState.RUNNING and is_measured


def folder_of_trial(folder: Path, number: int, *, rung: int | None) -> Path:
    """Where a trial keeps its checkpoints, and its report if it was measured whole.

    Args:
        folder: Folder of the sweep.
        number: Number of the trial.
        rung: Its rung, where rungs are runs of their own.
    """
    place = folder / "trials" / str(number)
    return place if rung is None else place / f"rung-{rung}"


def report_file(folder: Path, number: int, *, rung: int | None) -> Path:
    """Where the report on a trial lies in the folder of its sweep, if it was measured whole."""
    return folder_of_trial(folder, number, rung=rung) / "report.json"


def as_trained_file(folder: Path, number: int, *, rung: int | None) -> Path:
    """Where the report on a trial as it was trained lies, if it is judged in another way."""
    return folder_of_trial(folder, number, rung=rung) / AS_TRAINED_FILE


def cost_until_checkpoint(folder: Path, number: int, *, rung: int | None) -> Cost:
    """What a trial took up to its last checkpoint; nothing where it has none."""
    file = folder_of_trial(folder, number, rung=rung) / SECONDS_FILE
    return Cost(**json.loads(file.read_text())) if file.exists() else NOTHING


def _returns(found: Sequence[Mapping[str, Any]] | int) -> tuple[Mapping[str, Any], ...]:
    """Returns as they are written down; earlier studies have nothing but their number."""
    if isinstance(found, int):
        unknown = {"step": "?", "to": "?", "lr_factor": float("nan"), "why": "not written down"}
        return (unknown,) * found
    return tuple(found)


def _numbers(rows: Sequence[Sequence[float]]) -> tuple[Number, ...]:
    return tuple(Number(value=value, low=low, high=high) for value, low, high in rows)


def command_line(overrides: tuple[str, ...]) -> str:
    """The shell line that trains with these overrides."""
    return shlex.join(["onestep", "train", *overrides])
