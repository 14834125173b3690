"""Runs for tests of launching, and one that is killed on the way, in a process of its own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestep.platform.experiment import Experiment
from onestep.platform.training.launch import launch
from onestep.platform.training.place import Place
from onestep.tests.platform.training.group import DyingReporter, train
from onestep.tests.platform.training.recipe import FLOW_MATCHING, recipe
from onestep.tests.platform.training.watching import Meddler

STEPS = 6
EVALUATION = {"nfes": [1], "samples": 64}
PAIRS = {"count": 48, "steps": 3, "batch_size": 40}


def experiment(
    method: dict[str, Any] = FLOW_MATCHING, *, run: str = "first", **changes: Any
) -> Experiment:
    values = recipe(method, steps=STEPS, run=run, evaluation=EVALUATION, pairs=PAIRS, **changes)
    return Experiment.from_dict(values, ("method=flow_matching",))


def launch_and_die(place: Place, experiment: Mapping[str, Any], home: str, at: int) -> None:
    """Launch a run in a home and kill the process at a step; a task."""
    del place
    os.environ["ONESTEP_HOME"] = home
    launch(Experiment.from_dict(experiment), Meddler(reporter=DyingReporter(at)))


def train_at_home(place: Place, experiment: Mapping[str, Any], folder: Path, home: str) -> None:
    """Train with the models that are registered in a home; a task."""
    os.environ["ONESTEP_HOME"] = home
    train(place, experiment, folder)
