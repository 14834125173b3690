"""Rungs as runs of their own: what a study knows of them, who goes on, and what that takes."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import final

from optuna.trial import FrozenTrial, Trial, TrialState

from .cost import NOTHING, Cost
from .derived import Derived
from .halving import Promotion, Rung, bracket_of, promotable, to_the_top
from .ranking import Values, ranked
from .record import COST, CURVE, DIVERGED, ERROR, RUNG, STOPPED, UNTRIED
from .settings import SweepSettings
from .stopping import Curve, StoppingKind


@final
class Rungs:
    """Reads the rungs of a sweep from the trials of its study.

    A trial belongs to the bracket of the lowest rung that it ran at, and has its rivals there.

    Args:
        settings: The sweep.
        budgets: Samples of the rungs, the whole run last.
    """

    def __init__(self, settings: SweepSettings, budgets: Sequence[int]) -> None:
        self._settings, self._budgets = settings, tuple(budgets)
        self._curves = Derived(curve_of)

    def first(self, place: int) -> int:
        """The rung that a trial begins at.

        Args:
            place: How many trials were begun before it.
        """
        if self._settings.scheduler.kind is not StoppingKind.HYPERBAND:
            return 0
        return bracket_of(place, len(self._budgets), self._settings.scheduler.reduction)

    def is_between(self, trial: FrozenTrial) -> bool:
        """Whether a trial has ended at a rung and may go on to the next."""
        rung = trial.user_attrs.get(RUNG)
        is_running = trial.state == TrialState.RUNNING and STOPPED not in trial.user_attrs
        return is_running and rung is not None and self._budgets[rung] in self._curves.of(trial)

    def count(self, trials: Sequence[FrozenTrial], *, begun: int) -> int:
        """How many trials begin in the end, as far as is known; never fewer than have begun.

        Rungs that are filled are planned from it. A budget pays for no more than so many with all
        that go on from them; what it says of time or money counts at the pace of the runs until
        now.

        Args:
            trials: All trials of the study.
            begun: How many of them have begun.
        """
        rule, budget, most = self._settings.scheduler, self._settings.budget, self._settings.trials
        if rule.fill and budget.is_limited:
            took = sum((Cost(**one.user_attrs.get(COST, {})) for one in trials), NOTHING)
            paid = budget.samples or math.inf
            if took.samples:
                paid = min(paid, budget.share(took) * took.samples)
            some = range(1, most + 1)
            most = bisect_right(some, paid, key=lambda n: rule.expected_samples(n, self._budgets))
        return max(begun, most)

    def promotion(self, trials: Sequence[FrozenTrial], *, count: int) -> Promotion | None:
        """Who is to go on now, if anybody, to the highest rung first.

        Args:
            trials: All trials of the study.
            count: How many begin in the end.
        """
        firsts = [self.first(place) for place in range(count)]
        rule = self._settings.scheduler
        found = {
            bracket: promotable(
                self._known(trials, bracket),
                count=firsts.count(bracket),
                reduction=rule.reduction,
                fill=rule.fill,
            )
            for bracket in sorted(set(firsts))
        }
        return _highest(found)

    def last(self, trials: Sequence[FrozenTrial]) -> Promotion | None:
        """Who is to go on so that a sweep that begins no other trial ends with a whole run.

        Args:
            trials: All trials of the study.

        Returns:
            The promotion; None if there is a whole run, or a run of any rung is to be waited for.
        """
        brackets = {b: self._known(trials, b) for b in range(len(self._budgets))}
        rungs = [rung for some in brackets.values() for rung in some]
        if any(rung.running for rung in rungs) or any(b[-1].held for b in brackets.values()):
            return None
        return _highest({bracket: to_the_top(some) for bracket, some in brackets.items()})

    def reserve(self, trials: Sequence[FrozenTrial], rung: int) -> int:
        """Samples that the whole run still takes with which a sweep ends.

        Args:
            trials: All trials of the study.
            rung: The rung of the run that is to be started.
        """
        notes = [one.user_attrs for one in trials if RUNG in one.user_attrs]
        if len(self._budgets) - 1 in [each[RUNG] for each in notes if ERROR not in each]:
            return 0
        live = [
            one.user_attrs[RUNG]
            for one in trials
            if RUNG in one.user_attrs and one.state == TrialState.RUNNING
        ]
        return sum(self._budgets[max([rung, *live]) + 1 :])

    def place(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        """The place of a trial at the rung that it came to, in words.

        Args:
            trial: The trial, which waits there.
            trials: All trials of the study.
        """
        rung, bracket = int(trial.user_attrs[RUNG]), self._bracket(trial)
        order = ranked(self._known(trials, bracket)[rung - bracket].results)
        place = f"place {order.index(trial.number) + 1} of {len(order)}"
        return f"{place} among runs of {self._budgets[rung]} samples"

    def _bracket(self, trial: FrozenTrial) -> int:
        measured = [self._budgets.index(samples) for samples in self._curves.of(trial)]
        return min([trial.user_attrs[RUNG], *measured])

    def _known(self, trials: Sequence[FrozenTrial], bracket: int) -> list[Rung]:
        """What is known of each rung of a bracket, the lowest first."""
        some = [one for one in trials if RUNG in one.user_attrs and self._bracket(one) == bracket]
        closed = frozenset(one.number for one in some if one.state != TrialState.RUNNING)
        rungs = []
        for rung, samples in list(enumerate(self._budgets))[bracket:]:
            results: dict[int, Values] = {}
            running = set()
            for one in some:
                is_here = one.user_attrs[RUNG] == rung
                if samples in (curve := self._curves.of(one)):
                    results[one.number] = curve[samples]
                elif is_here and one.state == TrialState.RUNNING:
                    running.add(one.number)
                elif is_here and ERROR in one.user_attrs:
                    results[one.number] = (math.inf,) * len(self._settings.objectives.all)
                elif is_here and one.state == TrialState.COMPLETE:
                    results[one.number] = tuple(one.values)
            rungs.append(Rung(results=results, running=frozenset(running), closed=closed))
        return rungs


def curve_of(trial: Trial | FrozenTrial) -> dict[int, Values]:
    """Objectives of a trial by samples; JSON has made texts of the samples."""
    curve = trial.user_attrs.get(CURVE, {})
    return {int(samples): tuple(map(float, values)) for samples, values in curve.items()}


def curves_of(trials: Sequence[FrozenTrial], known: Derived[dict[int, Values]]) -> dict[int, Curve]:
    """What each trial of a study has reported, by its number there.

    What one gave that diverged later counts as bad as any: it holds nobody's place.

    Args:
        trials: All trials of the study. Points that were suggested and not tried are none.
        known: The objectives of each by samples.
    """
    begun = [one for one in trials if UNTRIED not in one.user_attrs]
    return {
        one.number: Curve(number=place, values=_of_rival(one, known.of(one)))
        for place, one in enumerate(begun)
    }


def _of_rival(trial: FrozenTrial, curve: dict[int, Values]) -> dict[int, Values]:
    if DIVERGED not in trial.user_attrs:
        return curve
    return {samples: (math.inf,) * len(values) for samples, values in curve.items()}


def _highest(found: dict[int, Promotion | None]) -> Promotion | None:
    """The promotion to the highest rung, of those in brackets whose lowest rung is their number."""
    some = [
        Promotion(number=one.number, rung=bracket + one.rung)
        for bracket, one in found.items()
        if one is not None
    ]
    return max(some, key=lambda one: one.rung, default=None)
