"""Samplers: who suggests the points of a sweep. All are Optuna's."""

import warnings
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, assert_never, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from .condition import Scalar


class SamplerKind(StrEnum):
    """Who suggests the points."""

    TPE = "tpe"
    """Tree-structured Parzen estimator over all keys at once; good with tens of trials."""
    GP = "gp"
    """Gaussian process; good where a trial is dear and keys are few."""
    CMAES = "cmaes"
    """CMA-ES; good with hundreds of trials and numbers alone."""
    QMC = "qmc"
    """Sobol's sequence: as random, but more even."""
    NSGA2 = "nsga2"
    """Genetic search for a front of two or three objectives."""
    NSGA3 = "nsga3"
    """Genetic search for a front of more objectives."""
    RANDOM = "random"
    """At random."""
    GRID = "grid"
    """Every point of a space of choices and whole numbers once, in random order."""


LEARNS_NOT: Final = (SamplerKind.QMC, SamplerKind.RANDOM, SamplerKind.GRID)
"""Those to whom results mean nothing: their points are the same whatever runs at once."""
OF_ONE: Final = (SamplerKind.CMAES,)
"""Those that improve one number only."""


@final
class SobolPoint(QMCSampler):
    """One point of Sobol's sequence over a whole space, keys under conditions among them.

    Optuna's own takes the keys of the first trial for all there are, and the next place that the
    study remembers, which a trial that is cut off leaves empty.

    Args:
        place: Place in the sequence.
        laws: All keys of the space.
        seed: Seed of the scrambling.
    """

    def __init__(self, place: int, laws: Mapping[str, BaseDistribution], *, seed: int) -> None:
        super().__init__(seed=seed, scramble=True, warn_independent_sampling=False)
        self._place, self._laws = place, laws

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All keys, whatever trials there have been."""
        del study, trial
        return dict(self._laws)

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        del study, search_space
        return self._place


_GENETIC: Final = (SamplerKind.NSGA2, SamplerKind.NSGA3)


@final
class GivenPoint(BaseSampler):
    """Suggests one point that is known.

    Args:
        values: The values of the point.
        sampler: Who may note to which generation the trial belongs.
    """

    def __init__(self, values: Mapping[str, Scalar], sampler: BaseSampler) -> None:
        self._values, self._sampler = values, sampler

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, but the sampler has seen the trial."""
        self._sampler.sample_relative(study, trial, search_space)
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of the point."""
        return self._values[param_name]


def given_point(
    values: Mapping[str, Scalar], kind: SamplerKind, *, number: int, population: int
) -> BaseSampler:
    """What suggests a point that is known; genetic search counts it among its first generations.

    Args:
        values: The point.
        kind: Who suggests the other points.
        number: Number of the trial.
        population: Trials of a generation, for genetic search.
    """
    sampler: BaseSampler = RandomSampler()
    if kind in _GENETIC:
        sampler = sampler_of(kind, {}, seed=0, number=number, startup=1, population=population)
    return GivenPoint(values, sampler)


def sampler_of(
    kind: SamplerKind,
    laws: Mapping[str, BaseDistribution],
    *,
    seed: int,
    number: int,
    startup: int,
    population: int,
) -> BaseSampler:
    """The sampler that suggests one trial.

    It depends on the trial's number, the seed and, where it learns, on what has ended: nothing is
    lost with the process that it lives in, and a sweep that was killed goes on with the points
    that it would have had.

    Args:
        kind: Which one.
        laws: All keys of the space, those under conditions among them.
        seed: Seed of the sweep.
        number: Number of the trial.
        startup: Random trials before it learns.
        population: Trials of a generation, for genetic search and CMA-ES.

    Returns:
        The sampler.
    """
    own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match kind:
            case SamplerKind.TPE:
                # Running trials count as bad ones, so that those at once keep away from each other.
                return TPESampler(
                    n_startup_trials=startup,
                    seed=own,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                )
            case SamplerKind.GP:
                return GPSampler(seed=own, n_startup_trials=startup, deterministic_objective=False)
            case SamplerKind.CMAES:
                return CmaEsSampler(
                    seed=own,
                    n_startup_trials=startup,
                    popsize=population,
                    warn_independent_sampling=False,
                )
            case SamplerKind.QMC:
                return SobolPoint(number, laws, seed=seed)
            case SamplerKind.NSGA2:
                return NSGAIISampler(seed=own, population_size=population)
            case SamplerKind.NSGA3:
                return NSGAIIISampler(seed=own, population_size=population)
            case SamplerKind.RANDOM:
                return RandomSampler(seed=own)
            case SamplerKind.GRID:
                return BruteForceSampler(seed=own)
            case _:
                assert_never(kind)
