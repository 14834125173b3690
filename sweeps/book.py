"""The book of a sweep: what the study knows of each trial, written the moment it is known.

Nothing that decides how a sweep goes on lives in its process alone. The trials that were running
when it was killed are the next ones that it starts, under their own numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from ..platform.atomic import write_text
from ..platform.password import without_passwords
from .condition import Scalar
from .cost import NOTHING, Cost
from .objective import Number
from .record import COST, ERROR, OVERRIDES, RESULTS, SAMPLES, STOPPED, UNTRIED, report_file
from .sampler import SamplerKind, sampler_of
from .settings import SweepSettings
from .study import ended

_TRIES: Final = 1000
"""Points that break a constraint, one after the other, before a sweep gives up."""
UNEXPECTED: Final = "the trial's process failed; Ray Tune's folder of the sweep has its error"


@final
@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial that is to be started.

    Attributes:
        number: Its number in the study.
        own: The overrides that are its own.
    """

    number: int
    own: tuple[str, ...]


@final
class Book:
    """Suggests trials and writes down what becomes of them.

    Args:
        study: The study; no other process works on it.
        settings: The sweep.
        base: Overrides of every trial.
        total: Samples of a whole trial.
        folder: Folder of the sweep, for the reports.
        pruner: Who says that a trial is to be stopped; None for nobody.
    """

    def __init__(
        self,
        study: Study,
        settings: SweepSettings,
        *,
        base: tuple[str, ...],
        total: int,
        folder: Path,
        pruner: BasePruner | None = None,
    ) -> None:
        self.study, self._settings, self._base, self._folder = study, settings, base, folder
        self._total, self.spent = total, ""
        """Which limit of the budget has been reached, or nothing."""
        study.pruner = pruner or NopPruner()
        self._waiting: list[FrozenTrial] = []
        self._open: dict[int, Trial] = {}
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if STOPPED in frozen.user_attrs:  # all but told
                self._close_stopped(self._again(frozen))
            else:
                self._waiting.append(frozen)

    @property
    def interrupted(self) -> int:
        """Trials that were running when the sweep was killed, and have not been started again."""
        return len(self._waiting)

    def suggest(self) -> Suggestion | None:
        """The next trial.

        Returns:
            It, or None if the budget is spent or a grid has no points left.

        Raises:
            ValueError: If no point is found that keeps the constraints.
        """
        if self._is_spent():
            return None
        broken = ""
        for _ in range(_TRIES):
            trial = self._next()
            values = self._settings.space.suggest(trial)
            if self._settings.sampler is SamplerKind.GRID and self._is_known(trial):
                self._reject(trial, "the grid has no points left")
                return None
            broken = self._settings.space.violated(values) or ""
            if not broken:
                return self._begin(trial, values)
            self._reject(trial, broken)
        raise ValueError(f"{_TRIES} points in a row break sweep.constraints, the last {broken}")

    def measured(self, number: int, numbers: Sequence[Number], *, samples: int, cost: Cost) -> bool:
        """Write down the objectives of a trial on its way.

        Args:
            number: The trial.
            numbers: Its objectives.
            samples: Samples that it has seen.
            cost: What it has taken.

        Returns:
            Whether it is to be stopped.
        """
        trial = self._open[number]
        if len(numbers) > 1 or not math.isfinite(numbers[0].value):
            return False
        if samples in self.study.get_trials(deepcopy=False)[number].intermediate_values:
            return False  # it was judged before it was cut off, and goes on
        trial.report(numbers[0].value, step=samples)
        if not trial.should_prune():
            return False
        self._keep(trial, numbers, samples=samples, cost=cost)
        trial.set_user_attr(STOPPED, f"{self._settings.scheduler.kind} at {samples} samples")
        return True

    def end(
        self, number: int, numbers: Sequence[Number], *, samples: int, report: str, cost: Cost
    ) -> None:
        """Close a trial that came to its end, or was stopped.

        Args:
            number: The trial.
            numbers: Its objectives.
            samples: Samples that it has seen.
            report: Its report as JSON; empty if it was stopped.
            cost: What it took.
        """
        trial = self._open[number]
        if STOPPED in trial.user_attrs:
            self._close_stopped(trial)
            return
        bad = [one.value for one in numbers if not math.isfinite(one.value)]
        if bad:
            self.fail(number, f"an objective is {bad[0]}", cost=cost)
            return
        # Before the study says that it has ended, or a kill would lose it.
        write_text(report_file(self._folder, number), report)
        self._keep(trial, numbers, samples=samples, cost=cost)
        self._tell(trial, values=[one.value for one in numbers])

    def fail(self, number: int, reason: str = UNEXPECTED, *, cost: Cost = NOTHING) -> None:
        """Close a trial that failed.

        Args:
            number: The trial.
            reason: Why.
            cost: What it took.
        """
        trial = self._open[number]
        trial.set_user_attr(ERROR, reason)
        trial.set_user_attr(COST, asdict(cost))
        self._tell(trial, state=TrialState.FAIL)

    def _is_spent(self) -> bool:
        if self._waiting:  # what has been begun is brought to its end
            return False
        known = ended(self.study)
        self.spent = self._settings.budget.spent(
            [one.cost for one in known],
            samples=sum(one.samples for one in known),
            running=len(self._open),
            samples_of_a_trial=self._total,
        )
        return bool(self.spent)

    def _next(self) -> Trial:
        """A trial that was cut off, or a new one."""
        if self._waiting:
            return self._again(self._waiting.pop(0))
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def _again(self, frozen: FrozenTrial) -> Trial:
        """A trial that was cut off, under its own number."""
        # A sampler that has had its turn must not have another one.
        is_whole = self._is_whole(frozen)
        self.study.sampler = RandomSampler() if is_whole else self._sampler(frozen.number)
        return Trial(self.study, frozen._trial_id)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        settings = self._settings
        return sampler_of(
            settings.sampler,
            seed=settings.seed,
            number=number,
            startup=settings.startup,
            population=settings.population,
        )

    def _is_whole(self, frozen: FrozenTrial) -> bool:
        """Whether all that is asked of a trial was suggested before it was cut off."""
        try:
            self._settings.space.suggest(FixedTrial(frozen.params))
        except ValueError:
            return False
        return True

    def _is_known(self, trial: Trial) -> bool:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL)
        return any(
            one.params == trial.params and one.number < trial.number
            for one in self.study.get_trials(deepcopy=False, states=states)
        )

    def _begin(self, trial: Trial, values: Mapping[str, Scalar]) -> Suggestion:
        own = self._settings.space.overrides(values)
        trial.set_user_attr(OVERRIDES, without_passwords([*self._base, *own]))
        self._open[trial.number] = trial
        return Suggestion(number=trial.number, own=own)

    def _keep(self, trial: Trial, numbers: Sequence[Number], *, samples: int, cost: Cost) -> None:
        trial.set_user_attr(SAMPLES, samples)
        trial.set_user_attr(COST, asdict(cost))
        trial.set_user_attr(RESULTS, [[one.value, one.low, one.high] for one in numbers])

    def _close_stopped(self, trial: Trial) -> None:
        # Several objectives know no pruned trials; a failed one teaches the sampler nothing.
        is_one = len(self._settings.objectives.all) == 1
        self._tell(trial, state=TrialState.PRUNED if is_one else TrialState.FAIL)

    def _reject(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(UNTRIED, reason)
        self._tell(trial, state=TrialState.FAIL)

    def _tell(self, trial: Trial, **result: Any) -> None:
        self.study.sampler = RandomSampler()  # a grid's own would refuse to be told its last trial
        self.study.tell(trial, **result)
        self._open.pop(trial.number, None)
