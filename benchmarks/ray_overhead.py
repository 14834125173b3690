"""Throughput of the training loop under Ray Train over the same loop in this process.

    python benchmarks/ray_overhead.py             measure and judge
    python benchmarks/ray_overhead.py --judge     judge the stored numbers again

Both train the same experiment with one worker and one thread. The throughput is that of the rows
between the first and the last report, so that starting up does not count; a checkpoint is written
in between. Runs alternate.
"""

import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from onestep.benchmarks.record import Bars, at_least, run
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.ray_instance import ray_instance
from onestep.platform.training.launch import train

ROUNDS = 3
LEAST = 0.95
OVERRIDES = [
    "data=digits",
    "net=mlp_digits",
    "method=mean_flow",
    "training.samples=64000",
    "training.log_every=4000",
    "training.checkpoint_every=32000",
    "training.threads=1",
]


class Speeds:
    """Collects the speed of each row of metrics but the first."""

    def __init__(self) -> None:
        self.rows: list[float] = []

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        if metrics:
            self.rows.append(metrics["time/step_s"])

    def close(self) -> None:
        """Nothing is held back."""

    @property
    def steps_per_s(self) -> float:
        return len(self.rows[1:]) / sum(self.rows[1:])


def measure() -> dict[str, Any]:
    experiment = Experiment.from_dict(compose("train", OVERRIDES))
    under_ray = replace(experiment, workers=replace(experiment.workers, ray=True))
    speeds: dict[str, list[float]] = {"plain": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder, ray_instance(num_cpus=2):
        for k in range(ROUNDS):
            for kind, chosen in (("plain", experiment), ("ray", under_ray)):
                reporter = Speeds()
                train(chosen, folder=Path(folder) / f"{kind}{k}", reporter=reporter)
                speeds[kind].append(reporter.steps_per_s)
                print(f"{kind} {k}: {reporter.steps_per_s:.2f} steps/s", flush=True)
    ratios = [ray / plain for ray, plain in zip(speeds["ray"], speeds["plain"], strict=True)]
    print(f"under Ray Train: {statistics.median(ratios):.1%} of the plain loop's throughput")
    return {
        "overrides": OVERRIDES,
        "steps_per_s": speeds,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [at_least(numbers["median_ratio"], LEAST, number="median_ratio")]


if __name__ == "__main__":
    run("ray_overhead", measure, bars)
