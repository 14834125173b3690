"""What follows from a trial alone, kept in memory until the trial changes."""

from collections.abc import Callable
from typing import Generic, TypeVar, final

from optuna.trial import FrozenTrial

T = TypeVar("T")


@final
class Derived(Generic[T]):
    """Something of each trial of a study, which is asked for far more often than a trial changes.

    A study that is remembered has another object for a trial as soon as it changes, and the same
    one until then. From one that is not it is computed each time.

    Args:
        compute: Computes it from a trial.
    """

    def __init__(self, compute: Callable[[FrozenTrial], T]) -> None:
        self._compute = compute
        self._known: dict[int, tuple[FrozenTrial, T]] = {}

    def of(self, trial: FrozenTrial) -> T:
        """That of a trial."""
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:
            known = self._known[trial.number] = (trial, self._compute(trial))
        return known[1]
