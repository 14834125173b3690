"""What a sampler learns from where trials are measured on their way: more than how they ended."""

import copy
from collections.abc import Container
from typing import Any, final

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from .derived import Derived
from .record import DIVERGED


@final
class RungSampler(BaseSampler):
    """Shows a sampler the trials of a study as ``shown`` and ``shown_at_rungs`` have them.

    Args:
        sampler: The sampler.
        shown: Each trial as it is shown.
    """

    def __init__(self, sampler: BaseSampler, shown: Derived[FrozenTrial]) -> None:
        self._sampler, self._shown = sampler, shown

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As the sampler has it."""
        return self._sampler.infer_relative_search_space(_MeasuredStudy(study, self._shown), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler has it."""
        return self._sampler.sample_relative(
            _MeasuredStudy(study, self._shown), trial, search_space
        )

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As the sampler has it."""
        return self._sampler.sample_independent(
            _MeasuredStudy(study, self._shown), trial, param_name, param_distribution
        )


@final
class _MeasuredStudy(Study):
    """A study whose trials are as a sampler is to see them."""

    def __init__(self, study: Study, shown: Derived[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage)
        self._shown = shown

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        del use_cache
        trials = map(self._shown.of, super()._get_trials(deepcopy=deepcopy))
        return [one for one in trials if states is None or one.state in states]


def shown(trial: FrozenTrial) -> FrozenTrial:
    """A trial as a sampler is to see it: without what it gave on its way, if it diverged later.

    Of stopped trials the one that got furthest counts as the best, and so would one that diverged.
    """
    if DIVERGED not in trial.user_attrs or not trial.intermediate_values:
        return trial
    diverged = copy.copy(trial)
    diverged.intermediate_values = {}
    return diverged


def shown_at_rungs(trial: FrozenTrial) -> FrozenTrial:
    """The same where rungs are runs of their own: one that waits at a rung was stopped there.

    For the study it is running, since it may go on, and would count as a bad one that has told
    nothing.
    """
    seen = shown(trial)
    if seen.state != TrialState.RUNNING or not seen.intermediate_values:
        return seen
    measured = copy.copy(seen)
    measured.state = TrialState.PRUNED
    return measured
