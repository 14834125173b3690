"""Early stopping: rules that end a trial by what it and the others have reported until then."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, Final, final

from .halving import bracket_cost, bracket_of, ladder
from .ranking import Values, ranked

_KEY: Final = "sweep.scheduler"


class StoppingKind(StrEnum):
    """Who may end a trial early."""

    NONE = "none"
    ASHA = "asha"
    """Asynchronous successive halving: the best go on from each rung."""
    HYPERBAND = "hyperband"
    """Halving in several brackets, which begin at different rungs."""
    MEDIAN = "median"
    """The better half goes on from each measurement."""
    PBT = "pbt"
    """Nobody is ended: the worst of a population go on from the best, with numbers moved."""
    PB2 = "pb2"
    """The same, with numbers that a Gaussian process chooses."""


_HALVING: Final = (StoppingKind.ASHA, StoppingKind.HYPERBAND)
_EFFECTIVE: Final = {
    "grace_samples": (*_HALVING, StoppingKind.MEDIAN),
    "reduction": _HALVING,
    "startup": (StoppingKind.MEDIAN,),
    "replan": _HALVING,
    "quantile": (StoppingKind.PBT, StoppingKind.PB2),
    "factor": (StoppingKind.PBT,),
    "resample": (StoppingKind.PBT,),
}
"""The rules on which each setting has an effect."""


@final
@dataclass(frozen=True, kw_only=True)
class Stopping:
    """A rule that ends trials early, or lets them go on from each other.

    Attributes:
        kind: The rule.
        grace_samples: Samples before which no trial is ended; the median rule measures again each
            time as many have passed.
        reduction: Of this many trials one goes on from each rung, at least 2; no matter for the
            median.
        startup: Trials that have to be measured beside one before the median may end it.
        replan: Whether each rung is a complete run of its own, planned on its samples, and the best
            of a rung are run again on those of the next.
        fill: Whether a rung is filled before the best of it go on, which costs less; otherwise they
            go on as soon as enough others are behind.
        quantile: Share of a population that goes on from as large a share of the best, at least one
            member, in (0, 0.5].
        factor: What numbers are multiplied or divided by, above 1; on a linear scale they move by
            as large a share of their range as it is above 1.
        resample: Chance with which a number is drawn anew instead, in [0, 1].

    Raises:
        ValueError: If a setting is out of range or has no effect on the rule.
    """

    kind: StoppingKind = StoppingKind.NONE
    grace_samples: int = 25_000
    reduction: int = 2
    startup: int = 5
    replan: bool = False
    fill: bool = False
    quantile: float = 0.25
    factor: float = 1.2
    resample: float = 0.25

    def __post_init__(self) -> None:
        if self.kind not in list(StoppingKind):
            raise ValueError(
                f"{_KEY}.kind must be one of {', '.join(StoppingKind)}, got {self.kind!r}"
            )
        object.__setattr__(self, "kind", StoppingKind(self.kind))
        if self.grace_samples < 1 or self.reduction < 2 or self.startup < 1:
            raise ValueError(
                f"{_KEY}.grace_samples and startup must be at least 1 and reduction at least 2, "
                f"got {self.grace_samples}, {self.startup} and {self.reduction}"
            )
        if self.replan and not self.is_halving:
            raise ValueError(
                f"{_KEY}.replan needs rungs to be planned on: {_KEY}.kind must be asha or "
                f"hyperband, got {self.kind}"
            )
        if self.fill and not self.replan:
            raise ValueError(
                f"{_KEY}.fill takes rungs that are runs of their own: {_KEY}.replan must be true, "
                f"got {self.replan}"
            )
        self._check_population()
        self._check_effect()

    def _check_population(self) -> None:
        if not (0.0 < self.quantile <= 0.5 and self.factor > 1.0 and 0.0 <= self.resample <= 1.0):
            raise ValueError(
                f"{_KEY}.quantile must be in (0, 0.5], factor above 1 and resample in [0, 1], got "
                f"{self.quantile:g}, {self.factor:g} and {self.resample:g}"
            )

    def _check_effect(self) -> None:
        for name in self._idle:
            if (got := getattr(self, name)) != (default := getattr(Stopping, name)):
                raise ValueError(
                    f"{_KEY}.{name} has no effect with {_KEY}.kind={self.kind}: leave it at "
                    f"{default:g}, got {got:g}"
                )

    @property
    def _idle(self) -> tuple[str, ...]:
        """Settings that have no effect with this rule."""
        return tuple(name for name, kinds in _EFFECTIVE.items() if self.kind not in kinds)

    @property
    def effective(self) -> dict[str, Any]:
        """The settings that have an effect with this rule, by name."""
        found = {name: getattr(self, name) for name in _EFFECTIVE if name not in self._idle}
        return {**found, "fill": self.fill} if self.replan else found

    @property
    def is_population(self) -> bool:
        """Whether trials are generations of members, which go on from each other."""
        return self.kind in (StoppingKind.PBT, StoppingKind.PB2)

    @property
    def is_halving(self) -> bool:
        """Whether the rule has rungs, each some times as long as the one below."""
        return self.kind in (StoppingKind.ASHA, StoppingKind.HYPERBAND)

    def budgets(self, total: int, *, batch: int = 1, generations: int = 1) -> tuple[int, ...]:
        """Samples at which trials are measured, the whole run last.

        Args:
            total: Samples of a whole run.
            batch: Samples after which every trial can be measured: the least common multiple of
                the sizes of their batches.
            generations: Equal parts of the run of a population.

        Returns:
            The samples, rising. Trials are compared at all but the last.

        Raises:
            ValueError: If no measurement fits in before the end.
        """
        match self.kind:
            case StoppingKind.NONE:
                return (total,)
            case StoppingKind.PBT | StoppingKind.PB2:
                steps = total // batch
                if steps < generations:
                    raise ValueError(
                        f"a run of {steps} batches cannot be cut into {generations} generations: "
                        "lower sweep.trials, or set sweep.population higher"
                    )
                return tuple(steps * k // generations * batch for k in range(1, generations + 1))
            case StoppingKind.ASHA | StoppingKind.HYPERBAND:
                return ladder(self.grace_samples, total, self.reduction, batch=batch)
            case StoppingKind.MEDIAN:
                every = max(self.grace_samples // batch, 1) * batch
                if every >= total:
                    raise ValueError(
                        f"{_KEY}.grace_samples must be below the {total} samples of a trial, got "
                        f"{self.grace_samples} in batches of {batch}"
                    )
                return (*range(every, total, every), total)

    def expected_samples(self, trials: int, budgets: tuple[int, ...]) -> int:
        """Samples of all trials, as far as the rule says beforehand how many go on.

        Args:
            trials: How many are begun.
            budgets: Samples at which they are measured, as ``budgets`` gives them.

        Returns:
            The samples; those of whole trials where the rule does not say.
        """
        if not self.is_halving:
            return trials * self.samples_of_a_trial(budgets)
        if self.kind is StoppingKind.ASHA:
            return bracket_cost(budgets, trials, self.reduction, replan=self.replan)
        brackets = Counter(bracket_of(n, len(budgets), self.reduction) for n in range(trials))
        return sum(
            bracket_cost(budgets[first:], count, self.reduction, replan=self.replan)
            for first, count in brackets.items()
        )

    def samples_of_a_trial(self, budgets: Sequence[int]) -> int:
        """The most samples that a trial is trained on.

        Args:
            budgets: Samples at which trials are measured.
        """
        if self.replan:
            return sum(budgets)
        if not self.is_population:
            return budgets[-1]
        return max(b - a for a, b in zip((0, *budgets), budgets, strict=False))


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a trial has reported.

    Attributes:
        number: Number of the trial among those that were begun, from 0, which gives its bracket.
        values: Its values by samples; smaller is better in each place.
    """

    number: int
    values: Mapping[int, Values]


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rule says of a trial at one of its measurements.

    Attributes:
        samples: Samples of the measurement.
        place: Its place among the trials that have been measured there, from 1.
        rivals: How many these are, itself among them.
        kept: The last place that goes on.
        is_finite: Whether all of its values are; otherwise it never goes on.
    """

    samples: int
    place: int
    rivals: int
    kept: int
    is_finite: bool = True

    @property
    def goes_on(self) -> bool:
        """Whether the trial goes on."""
        return self.is_finite and self.place <= self.kept

    def __str__(self) -> str:
        return (
            f"place {self.place} of {self.rivals} after {self.samples} samples, "
            f"of which {self.kept} go on"
        )


def judge(
    stopping: Stopping, trial: Curve, others: Iterable[Curve], budgets: tuple[int, ...]
) -> Verdict | None:
    """What a rule says of a trial at its newest report.

    A function of the curves alone: asked again, in another process too, it says the same. Others
    count by what they have reported so far, running or ended, so that with several trials at once a
    verdict depends on who came first; with one at a time on nothing but the curves. A trial that a
    kill cut off and the one that repeats it have one number and are one rival.

    Reference: Li et al. 2020 (ASHA), arXiv:1810.05934v5; Golovin et al. 2017 (Vizier),
        doi:10.1145/3097983.3098043, section 3.2.1, the median.
    Differs from the paper: a trial is ended at a rung and never taken up again, and the first at a
        rung goes on. The median is that of the values at this measurement, not of averages.

    Args:
        stopping: The rule.
        trial: The trial.
        others: All trials that have reported; the trial itself may be among them.
        budgets: Samples at which trials are measured, as ``Stopping.budgets`` gives them.

    Returns:
        The verdict; None if nothing is decided at this report.
    """
    samples = max(trial.values, default=0)
    bracket = _bracket(stopping, trial.number, budgets)
    if samples not in budgets[bracket:-1]:
        return None
    rivals = {
        other.number: other.values[samples]
        for other in others
        if samples in other.values and _bracket(stopping, other.number, budgets) == bracket
    }
    rivals[trial.number] = values = trial.values[samples]
    return Verdict(
        samples=samples,
        place=ranked(rivals).index(trial.number) + 1,
        rivals=len(rivals),
        kept=_kept(stopping, len(rivals)),
        is_finite=all(map(isfinite, values)),
    )


def _bracket(stopping: Stopping, number: int, budgets: tuple[int, ...]) -> int:
    """The bracket of a trial, in which all its rivals are; there is one where none are made."""
    if stopping.kind is not StoppingKind.HYPERBAND:
        return 0
    return bracket_of(number, len(budgets), stopping.reduction)


def _kept(stopping: Stopping, rivals: int) -> int:
    if stopping.kind is StoppingKind.MEDIAN:
        return rivals if rivals <= stopping.startup else (rivals + 1) // 2
    return max(1, rivals // stopping.reduction)
