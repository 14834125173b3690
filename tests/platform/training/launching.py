"""A launch that is killed on the way, as a task for a process of its own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from onestep.platform.experiment import Experiment
from onestep.platform.training.launch import launch
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import Reporter
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.group import DyingReporter, train


@final
class DyingWatcher:
    """Says nothing, and kills its process at a step.

    Args:
        at: The step.
    """

    def __init__(self, at: int) -> None:
        self._at, self._silence = at, Silence()

    def say(self, line: str) -> None:
        self._silence.say(line)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        with self._silence.counting(what) as count:
            yield count

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        del experiment
        yield DyingReporter(self._at)


def launch_and_die(place: Place, experiment: Mapping[str, Any], home: str, at: int) -> None:
    """Launch a run in a home and kill the process at a step; a task."""
    del place
    os.environ["ONESTEP_HOME"] = home
    launch(Experiment.from_dict(experiment), DyingWatcher(at))


def train_at_home(place: Place, experiment: Mapping[str, Any], folder: Path, home: str) -> None:
    """Train with the models that are registered in a home; a task."""
    os.environ["ONESTEP_HOME"] = home
    train(place, experiment, folder)
