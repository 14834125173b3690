"""What benchmarks have stored, and the recipes of today."""

import functools
import json
from pathlib import Path
from typing import Any, Final

from onestep.benchmarks.recipes import PLANE, digest
from onestep.benchmarks.record import recipe_of
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment

RESULTS: Final = Path(__file__).parents[2] / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """What a benchmark has stored."""
    stored: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return stored


def recipe_today(*overrides: str) -> dict[str, Any]:
    return recipe_of(Experiment.from_dict(compose("train", list(overrides))))


@functools.cache
def digest_today(recipe: str, common: tuple[str, ...] = (), *, dataset: str = PLANE) -> str:
    """What decides the result of a recipe today, composed once for all that ask."""
    return digest(recipe, common, dataset=dataset)
