"""Committed results belong to the recipes of today."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment

RESULTS: Final = Path(__file__).parent.parent / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """What a benchmark has stored."""
    stored: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return stored


def composed(*overrides: str) -> Experiment:
    return Experiment.from_dict(compose("train", list(overrides)))


def test_the_digits_were_learned_by_the_recipe_of_today() -> None:
    stored = read("digits")
    assert stored["samples"] == composed(*stored["overrides"]).training.samples
    assert stored["net"] == composed(*stored["overrides"]).net
    assert stored["method"] == composed(*stored["overrides"]).method


@pytest.mark.parametrize("recipe", sorted(read("planar")["recipes"]))
def test_the_plane_was_learned_by_the_recipe_of_today(recipe: str) -> None:
    stored, experiment = read("planar")["recipes"][recipe], composed(f"experiment={recipe}")
    assert stored["samples"] == experiment.training.samples
    assert stored["config"]["method"] == experiment.method
