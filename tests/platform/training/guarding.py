"""Tasks of several workers under a guardian; other processes import them."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestep.platform.experiment import Experiment
from onestep.platform.training.guard import Guard
from onestep.platform.training.place import Place
from onestep.platform.training.worker import work
from onestep.tests.platform.training.group import learning_of


class DiesGoingBack:
    """Kills its process as a return is told."""

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        del step, checkpoint
        if "guardian/returns" in metrics:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held back."""


def die_going_back(place: Place, experiment: Mapping[str, Any], folder: Path) -> None:
    """Train until the run goes back; a task."""
    work(experiment, place=place, reporter=DiesGoingBack(), folder=folder)


def measure_with_a_broken_follower(place: Place, experiment: Mapping[str, Any]) -> dict[str, float]:
    """A round in which the average of the second worker is broken; a task."""
    learning = learning_of(experiment, place)
    guard = Guard(Experiment.from_dict(experiment), place)
    guard.attend(learning, {})
    guard.note(learning.advance(), learning)
    if not place.leads:
        for weight in learning.served.parameters():
            weight.fill_(float("nan"))
    return guard.measure(learning)
