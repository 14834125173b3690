"""Whether every method learns eight Gaussians in one step: python benchmarks/learning.py [RECIPE].

A recipe is platform/conf/stages/eight_gaussians_RECIPE.yaml, or the experiment of that name where
it has one stage only. Its time is the processor time of its own trainings on one thread; that of
the teacher, and of making pairs, stands beside it. Results go to benchmarks/results/learning.json,
where recipes that are not named keep their numbers.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import torch

from onestep.benchmarks.planar import data_draws, draws, gaussian_draws, judge, sampler_of
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, machine, save
from onestep.platform.configuration import compose
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import Experiment, module_of
from onestep.platform.home import Home
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training.launch import launch
from onestep.platform.training.reporter import MemoryReporter, Reporter
from onestep.platform.training.sequence import StageSequence

PREFIX: Final = "eight_gaussians_"
CONF: Final = Path(__file__).parent.parent / "platform" / "conf"
TEACHER: Final = "teacher"
"""The stage whose time is not a recipe's own."""
COMMON: Final = ("training.threads=1",)
MOST: Final = {"mode_mass_tv": 0.06, "mode_std_ratio_max": 1.4, "outside_modes": 0.12}
LEAST: Final = {"mode_std_ratio_min": 0.7}
MOST_CORE_S: Final = {"one_stage": 60.0, "several_stages": 180.0}
EXPLAINED: Final[dict[str, dict[str, str]]] = {}
"""The bars that a recipe misses, and why."""


@final
@dataclass
class Clock:
    """A watcher that says nothing and keeps the processor time of what it watches."""

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
        with self._timed("training"):
            yield MemoryReporter()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.core_s[what] = round(time.process_time() - begin, 1)


def recipes() -> list[str]:
    """Every recipe there is, without its prefix."""
    paths = [*CONF.glob(f"experiment/{PREFIX}*.yaml"), *CONF.glob(f"stages/{PREFIX}*.yaml")]
    return sorted({path.stem.removeprefix(PREFIX) for path in paths})


def sequence(recipe: str) -> StageSequence:
    """The stages of a recipe."""
    if (CONF / "stages" / f"{PREFIX}{recipe}.yaml").exists():
        plan = compose("train", [f"stages={PREFIX}{recipe}"])["stages"]
    else:
        plan = {"model": [f"experiment={PREFIX}{recipe}"]}
    return StageSequence.of(plan, COMMON)


@final
class Workshop:
    """Trains recipes in a home of its own. Stages that several recipes share are trained once."""

    def __init__(self, folder: Path) -> None:
        os.environ["ONESTEP_HOME"] = str(folder)
        self._registry = Registry.at(Home.here())
        self._done: dict[tuple[str, ...], tuple[str, dict[str, float]]] = {}

    def measure(self, recipe: str) -> dict[str, Any]:
        """Train a recipe and judge one step of its last model."""
        models: dict[str, str] = {}
        core_s: dict[str, dict[str, float]] = {}
        for stage in sequence(recipe).stages:
            experiment = stage.experiment(models)
            if experiment.overrides not in self._done:
                clock = Clock()
                reference = str(launch(experiment, clock).reference)
                self._done[experiment.overrides] = (reference, clock.core_s)
            models[stage.name], core_s[stage.name] = self._done[experiment.overrides]
        flow_map, _ = load_flow_map(self._registry, models[stage.name])
        own = [name for name in core_s if name != TEACHER] or [TEACHER]
        return {
            "method": module_of(experiment.method),
            "stages": len(own),
            "core_s": round(sum(core_s[name]["training"] for name in own), 1),
            "core_s_of_each": core_s,
            "parameters": sum(p.numel() for p in flow_map.parameters()),
            "sampler": str(sampler_of(flow_map)),
            **judge(draws(flow_map), EightGaussians().load()),
        }


def bars(measured: Mapping[str, Any]) -> Bars:
    """What the bars say of one recipe."""
    found = [at_most(measured[number], bar, number=number) for number, bar in MOST.items()]
    found += [at_least(measured[number], bar, number=number) for number, bar in LEAST.items()]
    if "core_s" in measured:
        most = MOST_CORE_S["one_stage" if measured["stages"] == 1 else "several_stages"]
        found.append(at_most(measured["core_s"], most, number="core_s"))
    return found


def missed(measured: Mapping[str, Any]) -> list[str]:
    """The numbers that do not reach their bars."""
    return [str(bar["number"]) for bar in bars(measured) if not bar["reached"]]


def is_explained(recipe: str, measured: Mapping[str, Any]) -> bool:
    """Whether a recipe misses nothing but what is known."""
    return set(missed(measured)) <= EXPLAINED.get(recipe, {}).keys()


def main() -> None:
    """Run the named recipes, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(recipes()))
    chosen = parser.parse_args().recipes or recipes()
    if unknown := set(chosen) - set(recipes()):
        parser.error(f"recipes are {', '.join(recipes())}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    about, path, dataset = machine(), RESULTS / "learning.json", EightGaussians().load()
    found = dict(json.loads(path.read_text())["recipes"]) if path.exists() else {}
    trivial = {"one_gaussian": gaussian_draws(dataset), "training_data": data_draws(dataset)}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for recipe in chosen:
            found[recipe] = workshop.measure(recipe)
            ordered = {name: found[name] for name in recipes() if name in found}
            misses = {name: missed(each) for name, each in ordered.items() if missed(each)}
            content = {
                "bars": {**MOST, **LEAST, "core_s": MOST_CORE_S},
                "misses": misses,
                "reached": all(is_explained(name, each) for name, each in ordered.items()),
                **{name: judge(samples, dataset) for name, samples in trivial.items()},
                "recipes": ordered,
            }
            save("learning", content, about)
            print(recipe, json.dumps(found[recipe]), "misses", misses.get(recipe, "nothing"))


if __name__ == "__main__":
    main()
