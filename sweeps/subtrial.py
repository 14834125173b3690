"""Sub-trials: settings tried on a trial's weights, each a trial of a study beside the sweep's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self, final

from optuna import Study, load_study
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from .condition import Scalar
from .objective import Number, Objectives
from .settings import SweepSettings
from .study import begin

SUFFIX: Final = "-posthoc"
"""What the name of the study of sub-trials adds to that of its sweep."""
_PARENT: Final = "parent"
_RUNG: Final = "rung"
_TOLD: Final = "subtrial"


@final
@dataclass(frozen=True, kw_only=True)
class Way:
    """What a setting gives at one number of network evaluations, on the data it is judged by.

    Attributes:
        nfe: Network evaluations of a sample.
        quality: The first objective of quality.
        latency: Milliseconds for a sample; None where it was not measured.
    """

    nfe: int
    quality: Number
    latency: Number | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``."""
        latency = values["latency"]
        return cls(
            nfe=values["nfe"],
            quality=Number(**values["quality"]),
            latency=None if latency is None else Number(**latency),
        )


@final
@dataclass(frozen=True, kw_only=True)
class SubTrial:
    """A setting that was tried on the weights of a trial.

    Attributes:
        place: Its number among those of its trial; 0 is the trial as it was trained.
        values: The point of the post-hoc space; none as it was trained.
        said: The setting in words.
        tuned: The objectives on the data by which settings are chosen; none if it failed.
        judged: The objectives on the data that trials are judged by; none if it failed.
        ways: What it gives on these at each number of network evaluations that was measured.
        seconds: Seconds that it took.
        error: Why it failed; empty otherwise.
    """

    place: int
    values: Mapping[str, Scalar]
    said: str
    tuned: tuple[Number, ...] = ()
    judged: tuple[Number, ...] = ()
    ways: tuple[Way, ...] = ()
    seconds: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes an equal one."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``, after a way through JSON."""
        parts = {
            "tuned": tuple(Number(**one) for one in values["tuned"]),
            "judged": tuple(Number(**one) for one in values["judged"]),
            "ways": tuple(Way.from_dict(one) for one in values["ways"]),
        }
        return cls(**{**values, **parts})


@final
class SubStudy:
    """The study of all sub-trials of a sweep, in the database of the sweep's own.

    Args:
        storage: Optuna's database.
        sweep: Name of the sweep.
        objectives: The numbers to improve.
        laws: What the values of each key are drawn from.
    """

    def __init__(
        self,
        storage: BaseStorage,
        sweep: str,
        objectives: Objectives,
        laws: Mapping[str, BaseDistribution],
    ) -> None:
        self._study = begin(storage, f"{sweep}{SUFFIX}", objectives)
        self._laws = laws
        # Nobody else adds any.
        self._known = by_trial(self._study.get_trials(deepcopy=False))

    def of_trial(self, number: int, *, rung: int | None) -> tuple[SubTrial, ...]:
        """The sub-trials of a trial, in order.

        Args:
            number: The trial.
            rung: Its rung, where rungs are runs of their own.
        """
        return self._known.get((number, rung), ())

    def add(self, number: int, one: SubTrial, *, rung: int | None) -> None:
        """Write down a sub-trial; one that is known stays as it is.

        Args:
            number: Its trial.
            one: The sub-trial.
            rung: The rung of its trial, where rungs are runs of their own.
        """
        before = self.of_trial(number, rung=rung)
        if any(known.place == one.place for known in before):
            return
        self._study.add_trial(
            create_trial(
                state=TrialState.FAIL if one.error else TrialState.COMPLETE,
                params=dict(one.values),
                distributions={key: self._laws[key] for key in one.values},
                values=None if one.error else [each.value for each in one.tuned],
                user_attrs={_PARENT: number, _RUNG: rung, _TOLD: one.to_dict()},
            )
        )
        self._known[number, rung] = _in_order([*before, one])


def substudy_of(storage: BaseStorage, sweep: str, settings: SweepSettings) -> SubStudy | None:
    """The study of a sweep's sub-trials, made if it is missing; None where there are none.

    Args:
        storage: Optuna's database.
        sweep: Name of the sweep.
        settings: The sweep.
    """
    if settings.posthoc is None:
        return None
    laws = {key: one.distribution for key, one in settings.posthoc.space.dimensions.items()}
    return SubStudy(storage, sweep, settings.objectives, laws)


def subtrials_of(
    study: Study, *, of: int | None = None
) -> dict[tuple[int, int | None], tuple[SubTrial, ...]]:
    """The sub-trials of a sweep by their trial and its rung; none before the first.

    Args:
        study: The study of the sweep; nothing is changed.
        of: The trial whose sub-trials are asked for; None for all.
    """
    name = f"{study.study_name}{SUFFIX}"
    try:
        known = load_study(study_name=name, storage=study._storage)
    except KeyError:
        return {}
    trials = known.get_trials(deepcopy=False)
    return by_trial([one for one in trials if of in (None, one.user_attrs[_PARENT])])


def by_trial(trials: Sequence[FrozenTrial]) -> dict[tuple[int, int | None], tuple[SubTrial, ...]]:
    """Sub-trials by their trial and its rung, in order.

    Args:
        trials: The trials of their study.
    """
    found: dict[tuple[int, int | None], list[SubTrial]] = {}
    for trial in trials:
        notes = trial.user_attrs
        told = SubTrial.from_dict(notes[_TOLD])
        found.setdefault((notes[_PARENT], notes[_RUNG]), []).append(
            replace(told, values=dict(trial.params))
        )
    return {parent: _in_order(some) for parent, some in found.items()}


def _in_order(some: Sequence[SubTrial]) -> tuple[SubTrial, ...]:
    return tuple(sorted(some, key=lambda one: one.place))
