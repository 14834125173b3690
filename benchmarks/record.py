"""Results of benchmarks: numbers as JSON, with the machine they come from and what bars say."""

import argparse
import hashlib
import json
import os
import platform as standard_platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from onestep.platform.atomic import write_json
from onestep.platform.experiment import Experiment
from onestep.platform.registry.revision import code_revision
from onestep.platform.threads import usable_cores

RESULTS = Path(__file__).parent / "results"
DOCS = RESULTS.parent.parent / "docs"
GOLDEN = RESULTS.parent.parent / "tests" / "golden"
DECISIVE = (
    "samples",
    "batch_size",
    "shards",
    "accumulate",
    "precision",
    "clip_norm",
    "ema_half_lives",
    "ema_ramp",
    "ema_served",
)
"""Settings of the training that decide what is learned; the others decide how it is watched."""
Bars = list[dict[str, Any]]


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        standard_platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": standard_platform.python_version(),
        "torch": torch.__version__,
        "revision": code_revision(),
    }


def recipe_of(experiment: Experiment) -> dict[str, Any]:
    """All of an experiment that decides what is learned, and what the method makes of its steps."""
    config = experiment.to_dict()
    parts = ("data", "net", "method", "optimizer", "learning_rate", "seed")
    recipe = {part: config[part] for part in parts}
    recipe["training"] = {name: config["training"][name] for name in DECISIVE}
    recipe["behaviour"] = _behaviour(config["method"]["_target_"])
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _behaviour(method: str) -> str:
    """Digest of the method's recorded steps: a recipe says nothing of what the code makes of it."""
    module = method.split(".")[-2]
    return hashlib.sha256((GOLDEN / f"{module}.txt").read_bytes()).hexdigest()[:16]


def at_most(value: float, bar: float, **what: Any) -> dict[str, Any]:
    """The verdict on a number that has to be small."""
    return {**what, "value": value, "bar": f"<= {bar:g}", "reached": value <= bar}


def at_least(value: float, bar: float, **what: Any) -> dict[str, Any]:
    """The verdict on a number that has to be large."""
    return {**what, "value": value, "bar": f">= {bar:g}", "reached": value >= bar}


def more_than(value: float, bar: float, **what: Any) -> dict[str, Any]:
    """The verdict on a number that has to be larger."""
    return {**what, "value": value, "bar": f"> {bar:g}", "reached": value > bar}


def judged(numbers: Mapping[str, Any], bars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers with what their bars say of them, which is printed too."""
    for bar in bars:
        print(bar)
    return {**numbers, "bars": list(bars), "reached": all(bar["reached"] for bar in bars)}


def run(
    name: str, measure: Callable[[], dict[str, Any]], bars: Callable[[Any], Bars]
) -> dict[str, Any]:
    """Measure, or take the stored numbers, judge and write.

    Args:
        name: Name of the result.
        measure: Gives the numbers.
        bars: What the bars say of the numbers.

    Returns:
        What was written.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    if parser.parse_args().judge:
        numbers = json.loads((RESULTS / f"{name}.json").read_text())
    else:
        about = machine()
        numbers = {"machine": about, **measure()}
    stored = judged(numbers, bars(numbers))
    save(name, stored)
    return stored


def processors(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """On which processors things were measured, in words.

    Args:
        measured: By name, each with its ``machine``.

    Returns:
        The processor; of several, that of most of them first, and what the others had.
    """
    found: dict[str, list[str]] = {}
    for name, each in measured.items():
        found.setdefault(each["machine"]["cpu"], []).append(name)
    most, *others = sorted(found, key=lambda cpu: -len(found[cpu]))
    return "; ".join([most, *(f"{cpu}: {', '.join(found[cpu])}" for cpu in others)])


def save(name: str, numbers: Mapping[str, Any]) -> Path:
    """Write results/<name>.json; what was measured together has its machine beside it."""
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    write_json(path, dict(numbers))
    print(f"written to {path}")
    return path
