"""The search after training: settings are tried on a trial's weights, and one of them is chosen.

It needs nothing but the seed and what is known already, so that a trial that was cut off goes on
with the points that it would have had.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from .condition import Scalar
from .objective import Number, Objectives, not_finite
from .posthoc import PostHoc
from .posthoc_setting import Setting
from .sampler import sampler_of
from .subtrial import SubTrial, Way

_TRIES: Final = 100
"""Points in a row that are known, or break a constraint, before there are no others."""


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """What a setting gives.

    Attributes:
        tuned: The objectives on the data by which settings are chosen.
        judged: The objectives on the data that trials are judged by.
        ways: Quality and latency on these at each number of network evaluations.
    """

    tuned: tuple[Number, ...]
    judged: tuple[Number, ...]
    ways: tuple[Way, ...] = ()


Measure = Callable[[Setting], Found]


def try_settings(
    posthoc: PostHoc,
    objectives: Objectives,
    *,
    seed: int,
    number: int,
    known: Sequence[SubTrial],
    measure: Measure,
    told: Callable[[SubTrial], None],
) -> list[SubTrial]:
    """Try settings on the weights of a trial, the way of its training first.

    Args:
        posthoc: What is tried.
        objectives: The numbers to improve; the first one teaches the sampler.
        seed: Seed of the sweep.
        number: Number of the trial.
        known: What was tried before the trial was cut off.
        measure: Says what a setting gives.
        told: Told each new sub-trial.

    Returns:
        All sub-trials in order.

    Raises:
        ValueError: If what is known is of other points than these.
    """
    before = {one.place: one for one in known}

    def tried(place: int, values: dict[str, Scalar], setting: Setting) -> SubTrial:
        if place in before:
            if dict(before[place].values) != values:
                raise ValueError(
                    f"sub-trial {place} of trial {number} was {dict(before[place].values)}, and "
                    f"this code or this version of Optuna suggests {values}"
                )
            return before[place]
        one = _measured(place, values, setting, measure)
        told(one)
        return one

    done = [tried(0, {}, Setting())]
    points = _Points(posthoc, objectives, seed=seed, number=number)
    for values in points:
        one = tried(len(done), values, Setting.of(values, posthoc.base))
        points.tell(one)
        done.append(one)
    return done


def chosen_of(tried: Sequence[SubTrial], objectives: Objectives) -> SubTrial:
    """The sub-trial that is best in the first objective, on the data that settings are chosen by.

    Of equal ones the first is chosen, so that nothing changes where nothing helps.

    Args:
        tried: The sub-trials of a trial.
        objectives: The numbers to improve.

    Returns:
        It; what it is worth is ``judged``, which had no part in this.

    Raises:
        ValueError: If all failed.
    """
    measured = [one for one in tried if not one.error]
    if not measured:
        raise ValueError(f"the trial can be used in no way, {tried[0].said}: {tried[0].error}")
    sign = objectives.lead.sign
    return min(measured, key=lambda one: (sign * one.tuned[0].value, one.place))


@final
class _Points:
    """The points of a post-hoc space, one after the other; the last has to be told about."""

    def __init__(self, posthoc: PostHoc, objectives: Objectives, *, seed: int, number: int) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self._posthoc, self._sign = posthoc, objectives.lead.sign
        self._seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        self._study = optuna.create_study()
        self._open: optuna.Trial | None = None

    def __iter__(self) -> Iterator[dict[str, Scalar]]:
        space, seen, missed = self._posthoc.space, list[dict[str, Scalar]](), 0
        while len(seen) < self._posthoc.trials and missed < _TRIES:
            self._study.sampler = self._sampler(len(self._study.trials))
            self._open = self._study.ask()
            values = space.suggest(self._open)
            if space.violated(values) is not None or values in seen:
                self._close(None)
                missed += 1
                continue
            missed = 0
            seen.append(values)
            yield values

    def _sampler(self, place: int) -> BaseSampler:
        return sampler_of(
            self._posthoc.sampler,
            {key: one.distribution for key, one in self._posthoc.space.dimensions.items()},
            seed=self._seed,
            number=place,
            startup=self._posthoc.startup,
            population=2,
        )

    def tell(self, one: SubTrial) -> None:
        """What became of the last point."""
        self._close(None if one.error else self._sign * one.tuned[0].value)

    def _close(self, value: float | None) -> None:
        assert self._open is not None
        self._study.sampler = RandomSampler()  # that of a grid would refuse to be told the last one
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(self._open, value, state=state)


def _measured(
    place: int, values: dict[str, Scalar], setting: Setting, measure: Measure
) -> SubTrial:
    begin = time.monotonic()
    one = SubTrial(place=place, values=values, said=str(setting))
    try:
        found = measure(setting)
    # Such as samples that are no numbers, or a metric that finds none in them: the others go on.
    except (ValueError, ArithmeticError, LinAlgError) as error:
        said = " ".join(str(error).split())
        return replace(one, error=said, seconds=time.monotonic() - begin)
    if bad := not_finite([*found.tuned, *found.judged]):
        return replace(one, error=bad, seconds=time.monotonic() - begin)
    return replace(
        one,
        tuned=found.tuned,
        judged=found.judged,
        ways=found.ways,
        seconds=time.monotonic() - begin,
    )
