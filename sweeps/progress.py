"""Progress: how far a sweep is, which is shown while it runs."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from optuna.study import Study
from optuna.trial import FrozenTrial
from ray.tune import Callback

from .board import Show
from .cost import NOTHING, Cost
from .derived import Derived
from .journal import numbers_of
from .losses import last_loss
from .outage import past_tune
from .record import (
    COST,
    RUNG,
    SAMPLES,
    Outcome,
    TrialRecord,
    folder_of_trial,
    has_passed_a_rung,
)
from .report import ranked
from .searcher import NUMBER
from .settings import SweepSettings
from .study import has_come_to_its_end
from .trial import LOSS

_EVERY_S: Final = 1.0
_BAR: Final = 20
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0


@final
@dataclass(kw_only=True)
class Running:
    """A trial that is running.

    Attributes:
        since: When it was started, in seconds of the clock.
        planned: Samples of its run.
        folder: Its folder.
        is_telling: Whether it tells of its training; a group of workers does not.
        samples: Samples that it has seen, as far as is known.
        loss: Its last loss, as far as is known.
    """

    since: float
    planned: int
    folder: Path
    is_telling: bool = False
    samples: int = 0
    loss: float | None = None


@final
class Progress(Callback):
    """Follows the trials of a sweep; Ray Tune calls it in the process of the sweep.

    Args:
        study: The study.
        settings: The sweep.
        budgets: Samples of the runs of a trial, the whole one last.
        folder: Folder of the sweep.
        show: Told the table whenever it has changed, at most once a second.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        study: Study,
        settings: SweepSettings,
        *,
        budgets: Sequence[int],
        folder: Path,
        show: Show,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._settings, self._budgets = study, settings, budgets
        self._folder, self._show, self._clock = folder, show, clock
        self._ended: Sequence[TrialRecord] = ()
        self._costs: Sequence[Cost] = ()
        self._records, self._cost_of = Derived(TrialRecord.of), Derived(_cost_of)
        self._best = "no trial has been measured yet"
        self._running: dict[int, Running] = {}
        self._begun_at, self._shown_at = clock(), -math.inf
        self._is_stale = True

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune pickles its callbacks for a restore that sweeps do without.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins."""
        number, rung = trial.config[NUMBER], trial.config[RUNG]
        self._running[number] = Running(
            since=self._clock(),
            planned=self._budgets[-1 if rung is None else rung],
            folder=folder_of_trial(self._folder, number, rung=rung),
        )
        self._show_if_due()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial tells how far it is."""
        running = self._running.get(trial.config[NUMBER])
        if running is not None and SAMPLES in result:
            running.is_telling |= LOSS in result
            running.samples = int(result[SAMPLES])
            running.loss = result.get(LOSS, running.loss)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended by itself or was stopped."""
        self._end(trial.config[NUMBER])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process of a trial has failed."""
        self._end(trial.config[NUMBER])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ray Tune has looked after its trials once."""
        self._show_if_due()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The last trial has ended."""
        self._shown_at = -math.inf  # the last table is shown at once
        self._show_if_due()

    @property
    def lines(self) -> list[str]:
        """The table: how far the sweep is, the best trial, and a line for each that runs."""
        self._look()
        return [self._counts, self._best, *(self._line(*one) for one in self._running.items())]

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take if trials go on as those before; None if none ended."""
        self._look()
        if self._settings.scheduler.is_halving:
            return self._left_by_samples
        costs = [one.cost.wall_s for one in self._ended if one.cost.wall_s]
        if not costs:
            return None
        each, now = sum(costs) / len(costs), self._clock()
        mean = Cost(
            wall_s=each,
            gpu_s=sum(one.gpu_s for one in self._costs) / len(costs),
            samples=sum(one.samples for one in self._costs) // len(costs),
        )
        trials = min(self._settings.trials, self._settings.budget.trials(mean))
        waiting = max(0, trials - len(self._ended) - len(self._running))
        under_way = [max(0.0, each - (now - one.since)) for one in self._running.values()]
        return max([(waiting * each + sum(under_way)) / self._settings.concurrency, *under_way])

    @property
    def _left_by_samples(self) -> float | None:
        """The same where some go on to the next rung, at the pace of all runs until now."""
        seen = sum(one.samples for one in self._costs)
        if not seen:
            return None
        pace = sum(one.wall_s for one in self._costs) / seen
        under_way = [one.planned - one.samples for one in self._running.values()]
        seen += sum(one.samples for one in self._running.values())
        trials, at_once = self._settings.trials, self._settings.concurrency
        expected = self._settings.scheduler.expected_samples(trials, tuple(self._budgets))
        paid = self._settings.budget.share(sum(self._costs, NOTHING)) * sum(
            one.samples for one in self._costs
        )
        left = 0 if self._is_over else min(expected, paid) - seen
        return pace * max([left / at_once, 0.0, *under_way])

    @property
    def _is_over(self) -> bool:
        """Whether all trials have ended."""
        return len(self._ended) >= self._settings.trials

    @property
    def _counts(self) -> str:
        early = [
            f"{count} {outcome}"
            for outcome in (Outcome.STOPPED, Outcome.FAILED)
            if (count := sum(one.outcome is outcome for one in self._ended))
        ]
        said = f"{len(self._ended)} of {self._settings.trials} trials ended"
        said += f" ({', '.join(early)})" if early else ""
        said += f", {len(self._running)} running, {duration(self._clock() - self._begun_at)}"
        left_s = self.left_s
        return said if left_s is None else f"{said}, about {duration(left_s)} left"

    def _line(self, number: int, running: Running) -> str:
        share = min(1.0, running.samples / running.planned)
        bar = ("#" * round(share * _BAR)).ljust(_BAR, ".")
        loss = "" if running.loss is None else f"  loss {running.loss:.4g}"
        spent = duration(self._clock() - running.since)
        return f"trial {number:>4}  {bar} {share:>4.0%}  {spent:>8}{loss}"

    def _end(self, number: int) -> None:
        self._running.pop(number, None)
        self._is_stale = True
        self._show_if_due()

    @past_tune()
    def _show_if_due(self) -> None:
        """Show the table, unless it was shown just now: what changed is then shown later."""
        if self._clock() - self._shown_at >= _EVERY_S:
            self._shown_at = self._clock()
            self._look_at_silent()
            self._show(self.lines)

    def _look_at_silent(self) -> None:
        """Read what the trials have written down that tell nothing."""
        for one in self._running.values():
            if not one.is_telling and (last := last_loss(one.folder)) is not None:
                one.samples, one.loss = last

    def _look(self) -> None:
        """Read the study again, if a trial has ended since."""
        if not self._is_stale:
            return
        self._is_stale = False
        trials = self._study.get_trials(deepcopy=False)
        self._ended = [self._records.of(one) for one in trials if has_come_to_its_end(one)]
        costs = [self._cost_of.of(one) for one in trials]
        self._costs = [one for one in costs if one is not None]  # between rungs, too
        known = [*self._ended, *(self._records.of(one) for one in trials if has_passed_a_rung(one))]
        first = next(iter(ranked(known, self._settings.objectives)), None)
        if first is not None and first.results:
            so_far = f", {first.reason}" if first.outcome is Outcome.UNDERWAY else ""
            self._best = (
                f"best is trial {first.number}{so_far}: {numbers_of(first, self._settings)}"
            )


def _cost_of(trial: FrozenTrial) -> Cost | None:
    return Cost(**trial.user_attrs[COST]) if COST in trial.user_attrs else None


def duration(seconds: float) -> str:
    """A time in words, no finer than a second."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
