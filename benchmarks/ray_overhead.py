"""Throughput of the training loop under Ray Train over the same loop in this process.

    python benchmarks/ray_overhead.py             measure and judge
    python benchmarks/ray_overhead.py --judge     judge the stored numbers again

Both train the same experiment with one worker and one thread, in short segments that alternate, as
does which of the two is first. The throughput of a segment is that of the rows between its first
and its last report, so that starting up does not count; a checkpoint is written in between. A ratio
of two segments is as noisy as the machine, so there are many, and the lower end of the interval of
their median is judged.
"""

import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from onestep.benchmarks.record import Bars, at_least, run
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.ray_instance import ray_instance
from onestep.platform.training.launch import train

ROUNDS = 12
OUTER = 2
"""Ratios left out at either end: of twelve, the others hold the median with 96 % confidence."""
LEAST = 0.95
OVERRIDES = [
    "data=digits",
    "net=mlp_digits",
    "method=mean_flow",
    "training.samples=20000",
    "training.log_every=2000",
    "training.checkpoint_every=10000",
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
            turns = [("plain", experiment), ("ray", under_ray)]
            for kind, chosen in turns if k % 2 else reversed(turns):
                reporter = Speeds()
                train(chosen, folder=Path(folder) / f"{kind}{k}", reporter=reporter)
                speeds[kind].append(reporter.steps_per_s)
                print(f"{kind} {k}: {reporter.steps_per_s:.2f} steps/s", flush=True)
    ratios = [ray / plain for ray, plain in zip(speeds["ray"], speeds["plain"], strict=True)]
    low, high = interval(ratios)
    print(
        f"under Ray Train: {statistics.median(ratios):.1%} of the plain loop's throughput, "
        f"{low:.1%} to {high:.1%}"
    )
    return {
        "overrides": OVERRIDES,
        "steps_per_s": speeds,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "interval": [low, high],
    }


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """What holds the median of which these are draws, whatever their law."""
    kept = sorted(ratios)[OUTER : len(ratios) - OUTER]
    return kept[0], kept[-1]


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [at_least(numbers["interval"][0], LEAST, number="lower end of the median ratio")]


if __name__ == "__main__":
    run("ray_overhead", measure, bars)
