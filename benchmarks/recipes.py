"""The recipes for a data set, one or several stages each, trained and timed here.

A recipe is platform/conf/stages/SET_RECIPE.yaml, or the experiment of that name where it has one
stage only.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import torch

from onestep.benchmarks.record import recipe_of
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry
from onestep.platform.training.launch import launch
from onestep.platform.training.registration import Trained
from onestep.platform.training.reporter import MemoryReporter, Reporter
from onestep.platform.training.sequence import Stage, StageSequence

PLANE: Final = "eight_gaussians"
DIGITS: Final = "digits"
CONF: Final = Path(__file__).parent.parent / "platform" / "conf"
TEACHER: Final = "teacher"
"""The stage that a recipe shares with others."""
TRAINING: Final = "training"
PAIRS: Final = "pairs"
"""What the time of making pairs is called."""
BRIEF: Final = "evaluation.samples=64"
"""For models whose own evaluation nobody reads."""
SHORTER: Final = {
    "mean_flow": ("training.samples=560000", "training.batch_size=256"),
    "shortcut": ("training.samples=1200000",),
}
"""Overrides of recipes for the plane that were made for the stricter bars of planar.py."""


def recipes(dataset: str = PLANE) -> list[str]:
    """Every recipe that there is for a data set, without the name of the set."""
    prefix = f"{dataset}_"
    paths = [*CONF.glob(f"experiment/{prefix}*.yaml"), *CONF.glob(f"stages/{prefix}*.yaml")]
    return sorted({path.stem.removeprefix(prefix) for path in paths})


def sequence(recipe: str, common: Sequence[str] = (), *, dataset: str = PLANE) -> StageSequence:
    """The stages of a recipe, on one thread."""
    name = f"{dataset}_{recipe}"
    if (CONF / "stages" / f"{name}.yaml").exists():
        plan = compose("train", [f"stages={name}"])["stages"]
    else:
        plan = {"model": [f"experiment={name}"]}
    return StageSequence.of(plan, ("training.threads=1", *common))


def own_stages(stages: Sequence[Stage]) -> list[str]:
    """Names of the stages whose time is a recipe's own.

    That is all but the teacher; weights that a method begins from are no teacher.
    """
    names = {stage.name: stage.name for stage in stages}
    frozen = {name for stage in stages for name in stage.experiment(names).parents.frozen.values()}
    return [stage.name for stage in stages if stage.name != TEACHER or stage.name not in frozen]


def digest(recipe: str, common: Sequence[str] = (), *, dataset: str = PLANE) -> str:
    """What decides the result of a recipe, in short."""
    return digest_of(sequence(recipe, common, dataset=dataset).stages)


def digest_of(stages: Sequence[Stage]) -> str:
    """What decides the result of stages, in short."""
    names = {stage.name: stage.name for stage in stages}
    parts = [recipe_of(stage.experiment(names)) for stage in stages]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@final
@dataclass
class Clock:
    """A watcher that says nothing and keeps the time of what it watches.

    It is that of the processor, or of the clock where a GPU does the work.
    """

    core_s: dict[str, float] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """Take one line."""

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A counter that shows nothing."""
        with self._timed(what):
            yield lambda done, total: None

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        """A reporter that shows nothing."""
        del experiment
        with self._timed(TRAINING):
            yield MemoryReporter()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        now = time.perf_counter if torch.cuda.is_available() else time.process_time
        begin = now()
        yield
        self.core_s[what] = round(now() - begin, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Made:
    """A stage that has been trained.

    Attributes:
        experiment: What was trained.
        trained: What it left behind.
        core_s: Seconds of processor time of its training and of making its pairs.
    """

    experiment: Experiment
    trained: Trained
    core_s: Mapping[str, float]


@final
class Workshop:
    """Trains stages in a home of its own; one that several recipes share is trained once.

    Args:
        folder: The home, which this process has from now on.
    """

    def __init__(self, folder: Path) -> None:
        os.environ["ONESTEP_HOME"] = str(folder)
        self.registry = Registry.at(Home.here())
        self._made: dict[tuple[str, ...], Made] = {}

    def make(self, stages: Sequence[Stage]) -> dict[str, Made]:
        """Train stages that build on each other.

        Args:
            stages: The stages.

        Returns:
            What was made, by the stage's name.
        """
        models: dict[str, str] = {}
        made: dict[str, Made] = {}
        for stage in stages:
            experiment = stage.experiment(models)
            known = experiment.overrides
            if known not in self._made:
                clock = Clock()
                trained = launch(experiment, clock)
                self._made[known] = Made(
                    experiment=experiment, trained=trained, core_s=clock.core_s
                )
            made[stage.name] = self._made[known]
            models[stage.name] = str(made[stage.name].trained.reference)
        return made
