"""The ledger: what each trial took, what all took together, and what early stopping saved."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from .cost import Budget, Cost
from .record import Outcome, TrialRecord

LEDGER: Final = "ledger.json"


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one trial took.

    Attributes:
        number: The trial.
        outcome: How it ended, or that it has not.
        planned: Samples of the whole trial; of one that failed or goes on those that it saw.
        cost: Its time and samples.
        money: Its price, 0 where none is known.
        deaths: How often its process died; what that lost is not in its cost.
    """

    number: int
    outcome: Outcome
    planned: int
    cost: Cost
    money: float
    deaths: int = 0

    @property
    def saved_samples(self) -> int:
        """Samples that it was not trained on; below zero where it was begun anew at each rung."""
        return self.planned - self.cost.samples

    @property
    def saved_s(self) -> float:
        """Seconds that these would have taken at the trial's own pace."""
        seen = self.cost.samples
        return self.cost.wall_s * self.saved_samples / seen if seen else 0.0


@final
@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What the trials of a sweep took.

    Attributes:
        entries: One for each trial that ended, or has passed a rung that is a run of its own.
        has_price: Whether the sweep knows the price of an hour.
    """

    entries: tuple[Entry, ...]
    has_price: bool

    @classmethod
    def of(
        cls, trials: Sequence[TrialRecord], budget: Budget, whole: Callable[[TrialRecord], int]
    ) -> Self:
        """The ledger of some trials.

        Args:
            trials: The trials.
            budget: Its price counts.
            whole: Samples of the whole trial.
        """
        entries = tuple(
            Entry(
                number=one.number,
                outcome=one.outcome,
                planned=one.cost.samples if one.outcome is Outcome.FAILED else whole(one),
                cost=one.cost,
                money=budget.price(one.cost),
                deaths=len(one.deaths),
            )
            for one in trials
        )
        return cls(entries=entries, has_price=budget.price_per_node_hour > 0.0)

    def total(self, outcome: Outcome | None = None) -> dict[str, float]:
        """Sums over all trials, or over those of one outcome.

        Args:
            outcome: The outcome, or None for all.
        """
        some = [one for one in self.entries if outcome in (None, one.outcome)]
        return {
            "trials": len(some),
            "samples": sum(one.cost.samples for one in some),
            "wall_s": sum(one.cost.wall_s for one in some),
            "training_s": sum(one.cost.training_s for one in some),
            "posthoc_s": sum(one.cost.posthoc_s for one in some),
            "gpu_s": sum(one.cost.gpu_s for one in some),
            "money": sum(one.money for one in some),
        }

    @property
    def saved_samples(self) -> int:
        """Samples that stopping has spared, less those of runs that were begun anew."""
        return sum(one.saved_samples for one in self.entries)

    @property
    def saved_s(self) -> float:
        """Seconds that these would have taken, each at its trial's own pace."""
        return sum(one.saved_s for one in self.entries)

    @property
    def saved_share(self) -> float:
        """The same samples as a share of those that the trials would have seen without stopping."""
        ended = [one for one in self.entries if one.outcome is not Outcome.UNDERWAY]
        planned = sum(one.planned for one in ended)
        return self.saved_samples / planned if planned else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "trials": [{**asdict(one), "outcome": str(one.outcome)} for one in self.entries],
            "total": self.total(),
            "saved": {
                "samples": self.saved_samples,
                "seconds": self.saved_s,
                "share_of_samples": self.saved_share,
            },
        }
