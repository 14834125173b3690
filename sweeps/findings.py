"""Findings: what is known of a sweep, running or not, from its study and its folder alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, Self, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ..platform.evaluation.report import Report
from ..platform.home import Home
from ..platform.password import hide_passwords
from .ending import why_ended
from .ledger import Ledger
from .losses import Loss, losses_of
from .note import SweepNote, folder_of
from .objective import Objectives
from .record import (
    CURVE,
    OVERRIDES,
    REVISIONS,
    RUNG,
    UNTRIED,
    Outcome,
    TrialRecord,
    as_trained_file,
    command_line,
    folder_of_trial,
    has_passed_a_rung,
    report_file,
)
from .report import ranked
from .settings import SweepSettings
from .space import override
from .study import ended, open_storage, storage_url
from .subtrial import SubTrial, subtrials_of
from .trial import experiment_of
from .untried import untried
from .winner import MODELS, leaders_of

DIGEST: Final = "data_digest"
_OF_TRAINING: Final = "training."


@final
@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of a sweep.

    Attributes:
        study: Its study.
        note: What its folder says of it.
        folder: The folder.
    """

    study: optuna.Study
    note: SweepNote
    folder: Path

    @classmethod
    def of(cls, name: str) -> Self:
        """What is known of a sweep, whoever runs it; nothing of it is changed.

        Args:
            name: Name of the sweep.

        Returns:
            What is known.

        Raises:
            ValueError: If there is no such sweep, or its study is not in the database.
        """
        note = SweepNote.of(name)
        url = storage_url(note.settings, Home.here().root)
        try:
            study = optuna.load_study(study_name=name, storage=open_storage(url))
        except KeyError:
            raise ValueError(
                f"Optuna's database at {hide_passwords(url)} has no study of sweep {name}"
            ) from None
        return cls(study=study, note=note, folder=folder_of(name))

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.study.study_name

    @property
    def settings(self) -> SweepSettings:
        """The sweep."""
        return self.note.settings

    @property
    def objectives(self) -> Objectives:
        """The numbers that it improves."""
        return self.settings.objectives

    @property
    def ending(self) -> str:
        """Why the sweep has ended, in words; nothing while it has not."""
        return why_ended(self.study, self.settings)

    @property
    def untried(self) -> str:
        """What became of the points that are no trials, in words; nothing where there are none."""
        return untried(self.study)

    @property
    def data_digest(self) -> str:
        """Digest of its data; empty before its first trial."""
        return str(self.study.user_attrs.get(DIGEST, ""))

    @property
    def revisions(self) -> tuple[str, ...]:
        """Revisions of the code that it was begun with and that trials ran with, in turn."""
        later = (name for one in self.trials for name in one.user_attrs.get(REVISIONS, ()))
        return tuple(dict.fromkeys([self.note.revision, *later]))

    @cached_property
    def trials(self) -> tuple[FrozenTrial, ...]:
        """All trials that were begun, as Optuna knows them."""
        return tuple(
            one
            for one in self.study.get_trials(deepcopy=False)
            if OVERRIDES in one.user_attrs and UNTRIED not in one.user_attrs
        )

    @cached_property
    def ended(self) -> tuple[TrialRecord, ...]:
        """The trials that have ended, by number."""
        return ended(self.study)

    @cached_property
    def underway(self) -> tuple[TrialRecord, ...]:
        """The trials that were measured at a rung that is a run of its own, and have not ended."""
        return tuple(TrialRecord.of(one) for one in self.trials if has_passed_a_rung(one))

    @property
    def running(self) -> Mapping[int, str]:
        """The trials that have been begun and not ended: the line of each, by number."""
        return {
            one.number: command_line(tuple(one.user_attrs[OVERRIDES]))
            for one in self.trials
            if one.state == TrialState.RUNNING
        }

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """The trials that have ended or were measured, from best to worst."""
        return ranked([*self.ended, *self.underway], self.objectives)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial; None if none has been measured."""
        return next((one for one in self.ranked[:1] if one.results), None)

    @property
    def measured(self) -> list[TrialRecord]:
        """The trials that have objectives, from best to worst."""
        return [one for one in self.ranked if one.results]

    @property
    def leaders(self) -> list[TrialRecord]:
        """The trials whose weights are kept, from best to worst."""
        return leaders_of(self.ranked)

    @property
    def model(self) -> str | None:
        """The registered model of the best trial, or None."""
        models = self.study.user_attrs.get(MODELS, {})
        return None if self.best is None else models.get(str(self.best.number))

    @property
    def keys(self) -> Mapping[str, BaseDistribution]:
        """The keys that trials have, each with what it was drawn from."""
        found = {key: law for trial in self.trials for key, law in trial.distributions.items()}
        order = list(self.settings.space.dimensions)
        places = {key: place for place, key in enumerate(order)}
        return dict(sorted(found.items(), key=lambda pair: places.get(pair[0], len(order))))

    def report(self, trial: TrialRecord) -> Report | None:
        """The measurements of a trial; None if it was not measured whole."""
        return Report.read(report_file(self.folder, trial.number, rung=trial.rung))

    def report_as_trained(self, trial: TrialRecord) -> Report | None:
        """The same of a trial as it was trained, where it is judged in another setting."""
        return Report.read(as_trained_file(self.folder, trial.number, rung=trial.rung))

    def subtrials(self, trial: TrialRecord) -> tuple[SubTrial, ...]:
        """What was tried on the weights of a trial, in order."""
        return self._subtrials.get((trial.number, trial.rung), ())

    @cached_property
    def _subtrials(self) -> Mapping[tuple[int, int | None], tuple[SubTrial, ...]]:
        return {} if self.settings.posthoc is None else subtrials_of(self.study)

    def losses(self, trial: FrozenTrial) -> list[Loss]:
        """The training loss of a trial by samples, in its last run where it had several."""
        rung = trial.user_attrs.get(RUNG)
        return losses_of(folder_of_trial(self.folder, trial.number, rung=rung))

    def rungs(self, trial: FrozenTrial) -> dict[int, float]:
        """The first objective of a trial by samples, where it was measured on its way."""
        sign = self.objectives.lead.sign  # the study has smaller values for better ones
        curve: Mapping[str, Sequence[float]] = trial.user_attrs.get(CURVE, {})
        return {int(samples): sign * values[0] for samples, values in curve.items()}

    @property
    def ledger(self) -> Ledger:
        """What the trials took."""

        @cache
        def whole(overrides: tuple[str, ...]) -> int:
            training = experiment_of(overrides).training
            return training.steps * training.batch_size

        def planned(trial: TrialRecord) -> int:
            is_whole = trial.outcome is Outcome.FINISHED and trial.rung is None
            if is_whole or trial.outcome is Outcome.UNDERWAY:
                return trial.cost.samples
            # Those of its values alone: a rung that is a run of its own has fewer samples.
            own = [
                override(key, value)
                for key, value in trial.values.items()
                if key.startswith(_OF_TRAINING)
            ]
            return whole((*self.settings.base, *own))

        return Ledger.of([*self.ended, *self.underway], self.settings.budget, planned)
