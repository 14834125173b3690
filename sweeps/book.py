"""The book of a sweep: what the study knows of each trial, written the moment it is known.

Nothing that decides how a sweep goes on lives in its process alone. The trials that were running
when it was killed are the next ones that it starts, under their own numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from ..platform.atomic import write_text
from ..platform.password import without_passwords
from ..platform.training import checkpoint as checkpoints
from ..platform.training.worker import CHECKPOINTS
from .charges import Purse
from .condition import Scalar
from .cost import NOTHING, Cost
from .derived import Derived
from .ending import NO_POINTS_LEFT, NOTHING_LEFT, mark_ended, why_ended
from .halving import Promotion
from .lineage import LINEAGE, Lineage
from .measured import forget_numbers, forget_points, keep_numbers, note_failure, note_point
from .objective import Number, not_finite
from .points import Points
from .population import Population
from .record import (
    CHOSEN,
    DIVERGED,
    ERROR,
    ORIGIN,
    OVERRIDES,
    RESULTS,
    RETURNS,
    REVISIONS,
    RUNG,
    SAMPLES,
    STOPPED,
    UNTRIED,
    cost_until_checkpoint,
    folder_of_trial,
    report_file,
)
from .retry import Note, note_death, note_outage
from .rungs import Rungs, curve_of, curves_of
from .sampler import SamplerKind
from .settings import SweepSettings
from .space import override
from .stopping import judge
from .subtrial import SubStudy, SubTrial
from .suggestion import Suggestion
from .warm_start import FirstPoint

_TRIES: Final = 1000
"""Points that break a constraint, one after the other, before a sweep gives up."""
UNEXPECTED: Final = "the trial's process failed; Ray Tune's folder of the sweep has its error"


@final
class Book:
    """Suggests trials and writes down what becomes of them.

    Args:
        study: The study; no other process works on it.
        settings: The sweep.
        base: Overrides of every trial.
        budgets: Samples at which trials are measured, the whole trial last.
        folder: Folder of the sweep, for the reports.
        first: Points that are tried before any other.
        substudy: Where sub-trials are written down; None where there are none.
        revision: Revision of the code that trials are trained with from now on.
    """

    def __init__(
        self,
        study: Study,
        settings: SweepSettings,
        *,
        base: tuple[str, ...],
        budgets: tuple[int, ...],
        folder: Path,
        first: Sequence[FirstPoint] = (),
        substudy: SubStudy | None = None,
        revision: str = "unknown",
    ) -> None:
        self._first, self._substudy = first, substudy
        self._points = Points(study, settings, first)
        self.study, self._settings, self._base, self._folder = study, settings, base, folder
        self._revision, self._budgets, self._purse = revision, budgets, Purse(settings, budgets)
        self._rungs = Rungs(settings, budgets) if settings.scheduler.replan else None
        self._curves = Derived(curve_of)
        members = partial(Population, settings, base=base, budgets=budgets, folder=folder)
        self._population = members() if settings.scheduler.is_population else None
        study.pruner = NopPruner()
        self._waiting, self._is_exhausted = list[FrozenTrial](), False
        self._open: dict[int, Trial] = {}
        known = self._all()
        # Counted here from now on: nobody else adds trials, and to ask the database takes longer.
        self._count, self._begun = len(known), sum(UNTRIED not in one.user_attrs for one in known)
        for frozen in known:
            waits = self._rungs is not None and self._rungs.is_between(frozen)
            is_cut_off = frozen.state == TrialState.RUNNING and not waits
            if is_cut_off and not self._settle(Trial(study, frozen._trial_id)):
                self._waiting.append(frozen)

    @property
    def interrupted(self) -> tuple[FrozenTrial, ...]:
        """Trials that were running when the sweep was killed, and have not been started again."""
        return tuple(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to start, now or when what is running has ended."""
        return bool(self.ending)

    @property
    def ending(self) -> str:
        """Why nothing is left to start, in words; nothing while something is, or may be later."""
        if self._waiting or self._open:
            return ""
        if (why := why_ended(self.study, self._settings)) != "":
            return why
        if self._rungs is not None:
            if self._next_run(self._rungs) is not None:
                return ""
            return self._overspent or self._used_up or NOTHING_LEFT
        if used_up := self._used_up:
            return used_up
        if self._is_spent(self._purse.of_a_trial):
            return self._overspent
        if self._population is not None and self._population.is_extinct(self._all()):
            return "all trials of a generation have failed"
        return ""

    @property
    def spent(self) -> str:
        """Which limit of the budget has been reached, or nothing."""
        return self._purse.spent

    @property
    def _used_up(self) -> str:
        """Why there is no other point to begin, in words."""
        if self._begun >= self._settings.trials:
            return f"all {self._settings.trials} trials have ended"
        return NO_POINTS_LEFT if self._is_exhausted else ""

    @property
    def _overspent(self) -> str:
        return f"the budget is spent, {self.spent}" if self.spent else ""

    def suggest(self) -> Suggestion | None:
        """The next trial.

        Returns:
            It, or None if there is none now: all have been begun, the budget is spent or a grid has
            no points left.

        Raises:
            ValueError: If no point is found that keeps the constraints.
        """
        while self._waiting:
            trial = self._points.again(self._waiting.pop(0))
            values = self._settings.space.suggest(trial)
            broken = self._settings.space.violated(values)
            if broken is None:
                return self._begin(trial, values)
            self._begun -= 1
            self._reject(trial, broken)  # it was killed before this
        if self._rungs is not None:
            return self._at_a_rung(self._rungs)
        if self._is_spent(self._purse.of_a_trial) or self._begun >= self._settings.trials:
            return None
        if self._population is not None and self._begun >= self._settings.population:
            return self._child(self._population)
        return self._new()

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
        if samples in curve_of(trial):
            return False  # it was judged before it was cut off, and goes on
        if bad := not_finite(numbers):
            note_failure(trial, bad, cost=cost, has_diverged=True)
            return True
        values = self._settings.objectives.smaller_is_better(numbers)
        curves = curves_of(self._all(), self._curves)
        own = replace(curves[number], values={**curves[number].values, samples: tuple(values)})
        verdict = judge(self._settings.scheduler, own, curves.values(), self._budgets)
        is_over = verdict is not None and not verdict.goes_on
        if is_over:
            keep_numbers(trial, numbers, samples=samples, cost=cost)
            trial.set_user_attr(STOPPED, f"{self._settings.scheduler.kind}, {verdict}")
        # Last: what stands in the curve has been judged, also if a kill comes before this.
        self._note(trial, numbers, samples=samples)
        return is_over

    def went_back(self, number: int, *, to: int) -> None:
        """Forget what a trial was measured at beyond the samples that its guardian sent it to.

        Args:
            number: The trial.
            to: The samples.
        """
        if self._rungs is None:  # otherwise those below were other runs
            forget_points(self._open[number], beyond=to)

    def tried(self, number: int, one: SubTrial) -> None:
        """Write down what was tried on the weights of a trial.

        Args:
            number: The trial.
            one: The sub-trial.
        """
        assert self._substudy is not None, "a sweep without post-hoc settings has no sub-trials"
        self._substudy.add(number, one, rung=self._open[number].user_attrs.get(RUNG))

    def end(
        self,
        number: int,
        numbers: Sequence[Number],
        *,
        samples: int,
        report: str,
        cost: Cost,
        returns: Sequence[Mapping[str, Any]] = (),
        chosen: Mapping[str, Any] | None = None,
    ) -> None:
        """Close a trial that came to its end, or was stopped.

        Args:
            number: The trial.
            numbers: Its objectives.
            samples: Samples that it has seen.
            report: Its report as JSON; empty if it was stopped.
            cost: What it took.
            returns: When and why it was sent back to earlier checkpoints.
            chosen: The post-hoc setting that it is judged in; none where none were tried.
        """
        trial = self._open[number]
        if chosen:
            trial.set_user_attr(CHOSEN, dict(chosen))
        if returns:
            trial.set_user_attr(RETURNS, list(returns))
        if self._settle(trial):
            return
        if bad := not_finite(numbers):
            self.fail(number, bad, cost=cost, has_diverged=True)
            return
        rung = trial.user_attrs.get(RUNG)
        # Before the study says that it has ended, or a kill would lose it.
        write_text(report_file(self._folder, number, rung=rung), report)
        keep_numbers(trial, numbers, samples=samples, cost=cost)
        if rung is None or rung == len(self._budgets) - 1:
            self._tell(trial, values=[one.value for one in numbers])
        else:
            self._note(trial, numbers, samples=self._budgets[rung])
            del self._open[number]

    def fail(
        self,
        number: int,
        reason: str = UNEXPECTED,
        *,
        cost: Cost = NOTHING,
        has_diverged: bool = False,
    ) -> None:
        """Close a trial that failed.

        Args:
            number: The trial.
            reason: Why.
            cost: What it took.
            has_diverged: Whether its point is to blame, and not what it ran on.
        """
        trial = self._open[number]
        note_failure(trial, reason, cost=cost, has_diverged=has_diverged)
        self._close_failed(trial)

    def lose(self, number: int, reason: str) -> bool:
        """Write down that a trial's process died, or the node that it was on.

        Args:
            number: The trial.
            reason: How.

        Returns:
            Whether the trial is the next one to be started, from its last checkpoint; otherwise it
            has failed, for that was its last retry.
        """
        return self._retry(number, reason, note_death)

    def put_off(self, number: int, reason: str) -> bool:
        """Write down that a trial met the outage of a store, which says nothing of the trial.

        Args:
            number: The trial.
            reason: The outage.

        Returns:
            As ``lose`` does.

        Raises:
            OutageLasts: If it seems to last.
        """
        return self._retry(number, reason, note_outage)

    def close(self) -> None:
        """Close the trials that wait at a rung for a promotion that will not come.

        The study remembers that the sweep has ended, until it is to have other counts.
        """
        why, kind = self.ending, self._settings.scheduler.kind
        if (rungs := self._rungs) is not None:
            for frozen in filter(rungs.is_between, trials := self._all()):
                trial = self._points.again(frozen)
                trial.set_user_attr(STOPPED, f"{kind}, {rungs.place(frozen, trials)}")
                self._close_stopped(trial)
        if why:
            mark_ended(self.study, self._settings, why)

    def _retry(self, number: int, reason: str, note: Note) -> bool:
        trial = self._open[number]
        if self._settle(trial):
            return False
        cost = cost_until_checkpoint(self._folder, number, rung=trial.user_attrs.get(RUNG))
        if not note(trial, reason, self._settings, cost):
            self.fail(number, f"no retry is left after: {reason}", cost=cost)
            return False
        del self._open[number]
        self._waiting.append(self._all()[number])
        return True

    def _new(self) -> Suggestion | None:
        """A point that has not been tried."""
        space, broken = self._settings.space, ""
        for _ in range(_TRIES):
            self.study.sampler = self._points.sampler(self._count)
            trial = self.study.ask()
            self._count += 1
            values = space.suggest(trial)
            broken = space.violated(values) or ""
            if self._settings.sampler is SamplerKind.GRID and self._points.is_known(trial):
                self._reject(trial, NO_POINTS_LEFT)
                self._is_exhausted = True
                return None
            if not broken:
                self._begun += 1
                return self._begin(trial, values)
            self._reject(trial, broken)
        raise ValueError(
            f"{_TRIES} points in a row break sweep.space.constraints, the last {broken}"
        )

    def _child(self, population: Population) -> Suggestion | None:
        """A trial that goes on from another, written down at once or not at all."""
        if (child := population.next(self._all())) is None:
            return None
        child.keep(self.study, self._settings.space)
        self._count, self._begun = self._count + 1, self._begun + 1
        return self._begin(self._points.again(self._all()[-1]), child.point)

    def _begin(self, trial: Trial, values: Mapping[str, Scalar]) -> Suggestion:
        if self._population is not None:
            return self._begin_in(self._population, trial, values)
        if self._rungs is not None and RUNG not in trial.user_attrs:
            begun = sum(UNTRIED not in one.user_attrs for one in self._all()[: trial.number])
            trial.set_user_attr(RUNG, self._rungs.first(begun))
        rung = trial.user_attrs.get(RUNG)
        own = self._settings.space.overrides(values)
        if rung is not None:
            own = (*own, override("training.samples", self._budgets[rung]))
        if trial.number < len(self._first):
            trial.set_user_attr(ORIGIN, self._first[trial.number].origin)
        self._note_run(trial, own)
        known = () if self._substudy is None else self._substudy.of_trial(trial.number, rung=rung)
        return Suggestion(number=trial.number, own=own, rung=rung, known=known)

    def _begin_in(
        self, population: Population, trial: Trial, values: Mapping[str, Scalar]
    ) -> Suggestion:
        """Begin a trial of a population."""
        known = trial.user_attrs.get(LINEAGE)
        if known is None:
            own = self._settings.space.overrides(values)
            lineage = population.founder(trial.number, self._all(), own)
            trial.set_user_attr(LINEAGE, lineage.to_dict())
        else:
            lineage = Lineage.from_dict(known)
        self._note_run(trial, lineage.own)
        return Suggestion(
            number=trial.number,
            own=lineage.own,
            beginning=lineage.beginning,
            span=population.samples(lineage),
        )

    def _note_run(self, trial: Trial, own: Sequence[str]) -> None:
        """Write down how a trial is run, and by which code."""
        place = folder_of_trial(self._folder, trial.number, rung=trial.user_attrs.get(RUNG))
        goes_on = checkpoints.latest(place / CHECKPOINTS) is not None
        before = trial.user_attrs.get(REVISIONS, ()) if goes_on else ()
        trial.set_user_attr(REVISIONS, list(dict.fromkeys([*before, self._revision])))
        trial.set_user_attr(OVERRIDES, without_passwords([*self._base, *own]))
        if trial.user_attrs.get(RETURNS):
            trial.set_user_attr(RETURNS, [])  # they were those of its run at the rung below
        self._open[trial.number] = trial

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _is_spent(self, samples: int, *, kept: int = 0) -> bool:
        """Whether nothing is left for a run, of so many samples, with what is to be left then."""
        return self._purse.is_spent(samples, self._all, running=self._open, kept=kept)

    def _next_run(self, rungs: Rungs) -> Promotion | None:
        """What is to be run next, where rungs are runs of their own; a new trial by its number.

        New trials and promotions leave what the whole run takes with which a sweep ends.
        """
        trials = self._all()
        count = self._begun if self._is_exhausted else rungs.count(trials, begun=self._begun)
        found = rungs.promotion(trials, count=count)
        # What promotions leave of a budget goes to other trials, when all runs have ended.
        most = count if self._open or self._is_exhausted else self._settings.trials
        if found is None and self._begun < most:
            found = Promotion(number=self._count, rung=rungs.first(self._begun))
        if found is not None:
            kept = rungs.reserve(trials, found.rung)
            if not self._is_spent(self._budgets[found.rung], kept=kept):
                return found
        # What the rest was left for; if all have failed that is another trial.
        last = rungs.last(trials) or (None if self._open else found)
        if last is None:
            return None
        whole = self._budgets[last.rung] + rungs.reserve(trials, last.rung)
        return None if self._is_spent(whole) else last

    def _at_a_rung(self, rungs: Rungs) -> Suggestion | None:
        """A trial that goes on to the next rung, or a new one."""
        while (found := self._next_run(rungs)) is not None:
            if found.number < self._count:
                trial = self._points.again(self._all()[found.number])
                trial.set_user_attr(RUNG, found.rung)
                return self._begin(trial, self._settings.space.suggest(trial))
            if (new := self._new()) is not None:
                return new
        return None

    def _note(self, trial: Trial, numbers: Sequence[Number], *, samples: int) -> None:
        note_point(self.study, trial, self._settings.objectives, numbers, samples=samples)

    def _settle(self, trial: Trial) -> bool:
        """Tell the study of an end that is written down, if one is, and whether one was."""
        notes = trial.user_attrs
        if ERROR in notes:
            self._close_failed(trial)
        elif STOPPED in notes:
            if notes[SAMPLES] not in curve_of(trial):
                numbers = [Number(value=v, low=low, high=high) for v, low, high in notes[RESULTS]]
                self._note(trial, numbers, samples=notes[SAMPLES])
            self._close_stopped(trial)
        return ERROR in notes or STOPPED in notes

    def _close_failed(self, trial: Trial) -> None:
        if RUNG in trial.user_attrs:
            forget_numbers(trial)
        if DIVERGED in trial.user_attrs:
            self._close_stopped(trial)  # for the sampler: to keep away from such points
        else:
            self._tell(trial, state=TrialState.FAIL)

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
