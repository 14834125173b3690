"""What trials cost, and how much of it a sweep may spend."""

import math
from dataclasses import dataclass, replace
from typing import Final, final

_HOUR_S: Final = 3600.0
_LEAST_S: Final = 1.0
"""What every trial takes."""
_UNITS: Final = {
    "seconds": "seconds of trials",
    "gpu_seconds": "seconds of GPUs",
    "money": "of the money",
}


@final
@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a trial took, before and after every interruption.

    Attributes:
        wall_s: Seconds in which it held its place: training, measuring, loading.
        training_s: Seconds of processor time of the training alone.
        gpu_s: Seconds of GPUs that it held.
        samples: Samples that it was trained on, again after a return of its guardian, too; what a
            process that died had trained after its last checkpoint is in none of these numbers.
        posthoc_s: Seconds in which settings were tried on its weights when it had been trained.
    """

    wall_s: float = 0.0
    training_s: float = 0.0
    gpu_s: float = 0.0
    samples: int = 0
    posthoc_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            wall_s=self.wall_s + other.wall_s,
            training_s=self.training_s + other.training_s,
            gpu_s=self.gpu_s + other.gpu_s,
            samples=self.samples + other.samples,
            posthoc_s=self.posthoc_s + other.posthoc_s,
        )


NOTHING: Final = Cost()
"""What is known of a process that was killed."""


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all trials of a sweep may spend together; 0 for as much as they like.

    A trial is started as long as something is left when those that are running have ended, and then
    comes to its end. Of samples as many have to be left as it is planned to take, so that they are
    exceeded by those alone that it is trained on again after a return of its guardian. What running
    trials will have taken of all else is known from those that have ended: until one has, as many
    are started as run at once.

    Attributes:
        samples: Samples to train on.
        seconds: Seconds in which trials hold their places, summed over trials.
        gpu_seconds: Seconds of GPUs.
        money: Money, in the currency of the price.
        price_per_node_hour: Price of an hour of a node.
        trials_per_node: Trials that share a node; 0.25 where the workers of a trial take four.

    Raises:
        ValueError: If a limit is negative or pays for nothing, or money is limited or nodes are
            shared without a price.
    """

    samples: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    money: float = 0.0
    price_per_node_hour: float = 0.0
    trials_per_node: float = 1.0

    def __post_init__(self) -> None:
        for name in ("samples", "seconds", "gpu_seconds", "money", "price_per_node_hour"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"sweep.budget.{name} must be at least 0, got {value}")
        if self.trials_per_node <= 0.0:
            raise ValueError(
                f"sweep.budget.trials_per_node must be above 0, got {self.trials_per_node:g}"
            )
        for name in ("seconds", "gpu_seconds"):
            if 0.0 < (value := getattr(self, name)) < _LEAST_S:
                raise ValueError(
                    f"sweep.budget.{name} must be 0 or at least {_LEAST_S:g}, for less pays for no "
                    f"trial, got {value:g}"
                )
        if self.money > 0.0 and self.price_per_node_hour == 0.0:
            raise ValueError(
                "sweep.budget.money needs a price: set sweep.budget.price_per_node_hour"
            )
        if self.trials_per_node != 1.0 and self.price_per_node_hour == 0.0:
            raise ValueError(
                "sweep.budget.trials_per_node has no effect without sweep.budget."
                f"price_per_node_hour: leave it at 1, got {self.trials_per_node:g}"
            )
        if 0.0 < self.money < (least := self.price(Cost(wall_s=_LEAST_S))):
            raise ValueError(
                f"sweep.budget.money must be 0 or at least {least:g}, the price of a second of a "
                f"trial, got {self.money:g}"
            )

    @property
    def is_limited(self) -> bool:
        """Whether it has any limit."""
        return any((self.samples, self.seconds, self.gpu_seconds, self.money))

    def price(self, cost: Cost) -> float:
        """What a trial costs in money."""
        return cost.wall_s / _HOUR_S * self.price_per_node_hour / self.trials_per_node

    def spent(self, done: Cost, *, samples: int, ahead: float) -> str:
        """Which limit does not allow another run, or nothing.

        Args:
            done: What the runs that have ended took.
            samples: Samples that have to be left: of those that are running, and of others.
            ahead: What will be taken of all else, by those that are running and others that it is
                kept for, over what was taken.
        """
        if self.samples and done.samples + samples > self.samples:
            return f"{done.samples} of {self.samples} samples"
        used = self._used(done)
        for name, unit in _UNITS.items():
            limit, taken = used[name]
            if limit and taken * (1.0 + ahead) >= limit:
                return f"{taken:.6g} of {limit:.6g} {unit}"
        return ""

    def check_spent(self, done: Cost, *, before: "Budget") -> None:
        """Refuse a limit that has been exceeded already, where it takes the place of another one.

        Args:
            done: What the runs that have ended took.
            before: The budget until now, of which any limit may have been exceeded.

        Raises:
            ValueError: If another limit is below what has been spent.
        """
        known = before._used(done)
        for name, (limit, taken) in self._used(done).items():
            shown = str(taken) if name == "samples" else f"{taken:.6g}"
            if limit and (limit, taken) != known[name] and limit < float(shown):
                raise ValueError(
                    f"sweep.budget.{name} must be 0 or at least the {shown} that have been spent, "
                    f"got {limit}"
                )

    def _used(self, done: Cost) -> dict[str, tuple[float, float]]:
        """The limits, each with what of it has been spent."""
        return {
            "samples": (self.samples, done.samples),
            "seconds": (self.seconds, done.wall_s),
            "gpu_seconds": (self.gpu_seconds, done.gpu_s),
            "money": (self.money, self.price(done)),
        }

    def share(self, cost: Cost) -> float:
        """How much of a cost it pays for; infinite where it limits nothing of it."""
        return min(self._shares(cost), default=math.inf)

    def trials(self, each: Cost, *, at_once: int = 1) -> float:
        """How many trials it pays for: one is begun while something is left.

        Args:
            each: What a trial takes.
            at_once: How many begin before one has ended, and so before it is known what they take.

        Returns:
            The number; infinite where it limits nothing of it.
        """
        shares = self._shares(replace(each, samples=0))
        found = [max(at_once, math.ceil(share)) for share in shares]
        if self.samples and each.samples:
            found.append(self.samples // each.samples)
        return min(found, default=math.inf)

    def _shares(self, cost: Cost) -> list[float]:
        return [limit / amount for limit, amount in self._used(cost).values() if limit and amount]

    def check(self, *, samples_of_a_trial: int) -> None:
        """Refuse a budget that allows no trial.

        Args:
            samples_of_a_trial: Samples of a whole one.

        Raises:
            ValueError: If there are too few samples for one trial.
        """
        if 0 < self.samples < samples_of_a_trial:
            raise ValueError(
                f"sweep.budget.samples must be 0 or at least the {samples_of_a_trial} of a trial, "
                f"got {self.samples}"
            )

    def check_trials(self, *, workers: int, gpus_per_worker: float, concurrency: int) -> None:
        """Refuse a budget that contradicts how trials run.

        Args:
            workers: Workers of a trial.
            gpus_per_worker: GPUs of each.
            concurrency: Trials at once.

        Raises:
            ValueError: If seconds of GPUs are limited where there are none, or more nodes are paid
                for or shared than can be.
        """
        if self.gpu_seconds and not gpus_per_worker:
            raise ValueError(
                "sweep.budget.gpu_seconds limits nothing where trials hold no GPU: set "
                f"workers.gpus_per_worker, or leave it at 0, got {self.gpu_seconds:g}"
            )
        if self.trials_per_node * workers < 1.0:
            raise ValueError(
                "sweep.budget.trials_per_node must be at least 1 / workers.num_workers, for a "
                f"worker is on one node, got {self.trials_per_node:g} and {workers} workers"
            )
        if self.trials_per_node > concurrency:
            raise ValueError(
                "sweep.budget.trials_per_node must be at most sweep.concurrency, for no more "
                f"trials are there to share a node, got {self.trials_per_node:g} and {concurrency}"
            )
