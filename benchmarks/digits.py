"""Quality of MeanFlow on handwritten digits within twenty minutes of two cores.

    python benchmarks/digits.py             train, measure, judge
    python benchmarks/digits.py --judge     judge the stored measurements again

Trains the experiment digits_mean_flow on one thread, measures it at 1, 2, 4 and 8 evaluations
against held-out digits and writes the numbers beside the bars, the floors and the baselines. The
budget is counted in seconds of processor time, which other processes on the machine lengthen but do
not hide. For each bar it says which trivial generator reaches it too: such a bar alone proves
nothing, and no trivial generator may reach all of them.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from onestep.benchmarks.record import RESULTS, machine, recipe_of, save
from onestep.platform.configuration import compose
from onestep.platform.evaluation.comparison import gather
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import assemble
from onestep.platform.training.launch import launch
from onestep.platform.training.watcher import Console

OVERRIDES = ["experiment=digits_mean_flow", "training.threads=1"]
BUDGET_CORE_S = 2 * 20 * 60
AT_MOST = {("eval/1nn_accuracy", 1): 0.62, ("eval/1nn_accuracy", 2): 0.59}
AT_MOST_FLOORS = {("eval/sliced_w2", 1): 1.4, ("eval/sliced_w2", 2): 1.15}
AT_LEAST = {("eval/class_agreement", 1): 0.98, ("eval/class_agreement", 2): 0.98}


def main() -> None:
    """Train or read, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", action="store_true", help="judge the stored measurements again")
    if parser.parse_args().judge:
        numbers = json.loads((RESULTS / "digits.json").read_text())
    else:
        about = machine()
        numbers = {"machine": about, **train()}
    numbers["bars"] = [verdict(row) for row in numbers["measurements"] if is_barred(row)]
    numbers["reached"] = all(bar["reached"] for bar in numbers["bars"])
    numbers["baselines_that_reach_all"] = sorted(
        set.intersection(*(set(bar["reached_by_baselines"]) for bar in numbers["bars"]))
    )
    for bar in numbers["bars"]:
        print(bar)
    save("digits", numbers)


def train() -> dict[str, Any]:
    """Train the recipe and measure it."""
    experiment = Experiment.from_dict(compose("train", OVERRIDES), tuple(OVERRIDES))
    assemble(experiment)
    begin, begin_core = time.monotonic(), time.process_time()
    trained = launch(experiment, Console())
    seconds, core_s = time.monotonic() - begin, time.process_time() - begin_core
    registry = Registry.at(Home.here())
    gather(registry, {str(trained.reference): trained.report}).write(RESULTS / "digits")
    return {
        "overrides": OVERRIDES,
        "recipe": recipe_of(experiment),
        "seconds_with_evaluation": round(seconds),
        "core_s_with_evaluation": round(core_s),
        "within_budget": core_s <= BUDGET_CORE_S,
        "count": trained.report.provenance.count,
        "draws": trained.report.provenance.draws,
        "measurements": [
            {
                "metric": m.name,
                "nfe": m.nfe,
                "value": m.value,
                "interval": m.interval,
                "floor": m.floor,
                "baselines": dict(m.baselines),
            }
            for m in trained.report.measurements
        ],
    }


def is_barred(row: Mapping[str, Any]) -> bool:
    """Whether there is a bar for a measurement."""
    key = (row["metric"], row["nfe"])
    return key in AT_MOST or key in AT_MOST_FLOORS or key in AT_LEAST


def verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the bar of a measurement says of the model and of the trivial generators."""
    key = (row["metric"], row["nfe"])
    return {
        "metric": row["metric"],
        "nfe": row["nfe"],
        "value": row["value"],
        "bar": bar_of(key),
        "reached": reaches(row["value"], key, row["floor"]),
        "reached_by_baselines": [
            name for name, value in row["baselines"].items() if reaches(value, key, row["floor"])
        ],
    }


def bar_of(key: tuple[str, int]) -> str:
    """A bar in words."""
    if key in AT_MOST:
        return f"<= {AT_MOST[key]}"
    if key in AT_MOST_FLOORS:
        return f"<= {AT_MOST_FLOORS[key]} x floor"
    return f">= {AT_LEAST[key]}"


def reaches(value: float, key: tuple[str, int], floor: float) -> bool:
    """Whether a value is on the right side of its bar."""
    if key in AT_MOST:
        return value <= AT_MOST[key]
    if key in AT_MOST_FLOORS:
        return value <= AT_MOST_FLOORS[key] * floor
    return value >= AT_LEAST[key]


if __name__ == "__main__":
    main()
