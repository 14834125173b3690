"""Points: who suggests them, also the rest of one that was cut off while it was suggested."""

import copy
import sys
from collections.abc import Sequence
from typing import final

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, Trial

from .derived import Derived
from .record import ERROR, RESULTS
from .rung_sampler import RungSampler, shown, shown_at_rungs
from .sampler import SamplerKind, given_point, sampler_of
from .settings import SweepSettings
from .stopping import StoppingKind
from .warm_start import FirstPoint


@final
class Points:
    """The points of a sweep, each a function of its number and of what is known then.

    Args:
        study: The study.
        settings: The sweep.
        first: Points that are tried before any other.
    """

    def __init__(self, study: Study, settings: SweepSettings, first: Sequence[FirstPoint]) -> None:
        self._study, self._settings, self._first = study, settings, first
        self._has_good = False
        self._shown = Derived(shown_at_rungs if settings.scheduler.replan else shown)
        # With the seed of the sweep that they come from, its random points would come again, too.
        self._seed = settings.seed
        if first:
            drawn = np.random.SeedSequence((settings.seed, len(first))).generate_state(1)
            self._seed = int(drawn[0])

    def again(self, frozen: FrozenTrial) -> Trial:
        """A trial that is in the study already, under its own number."""
        # A sampler that has had its turn must not have another one.
        is_whole = self._is_whole(frozen)
        self._study.sampler = RandomSampler() if is_whole else self.sampler(frozen.number)
        trial = Trial(self._study, frozen._trial_id)
        if not is_whole:
            self._draw_again(trial, frozen)
        return trial

    def _draw_again(self, trial: Trial, frozen: FrozenTrial) -> None:
        """Have the sampler draw what a trial has, so that the rest is what it would have been."""
        before = copy.copy(frozen)
        before.params, before.distributions = {}, {}
        for key in (one for one in self._settings.space.dimensions if one in frozen.params):
            law = frozen.distributions[key]
            if not law.single() and key not in trial.relative_params:
                self._study.sampler.sample_independent(self._study, before, key, law)
            before.params = {**before.params, key: frozen.params[key]}
            before.distributions = {**before.distributions, key: law}

    def _is_whole(self, frozen: FrozenTrial) -> bool:
        """Whether all that is asked of a trial was suggested before it was cut off."""
        try:
            self._settings.space.suggest(FixedTrial(frozen.params))
        except ValueError:
            return False
        return True

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Who suggests a trial.

        Args:
            number: The trial.
        """
        settings = self._settings
        if number < len(self._first):
            return given_point(
                self._first[number].values,
                settings.sampler,
                number=number,
                population=settings.population,
            )
        sampler = sampler_of(
            settings.sampler,
            {key: one.distribution for key, one in settings.space.dimensions.items()},
            seed=self._seed,
            number=number,
            startup=settings.startup if self._is_any_good else sys.maxsize,
            population=settings.population,
        )
        is_measured = settings.scheduler.kind is not StoppingKind.NONE
        learns = is_measured and settings.sampler is SamplerKind.TPE
        return RungSampler(sampler, self._shown) if learns else sampler

    @property
    def _is_any_good(self) -> bool:
        """Whether a trial has been measured: of those that diverged alone none is the better."""
        if not self._has_good:  # once there is one it is not looked for again
            trials = self._study.get_trials(deepcopy=False)
            notes = [one.user_attrs for one in trials]
            self._has_good = any(RESULTS in each and ERROR not in each for each in notes)
        return self._has_good

    def is_known(self, trial: Trial) -> bool:
        """Whether an earlier trial has the same values."""
        return any(
            one.params == trial.params
            for one in self._study.get_trials(deepcopy=False)[: trial.number]
        )
