"""What a sweep costs beside its trials: python benchmarks/sweep_overhead.py.

A thousand trials that train nothing go through book, searcher, scheduler and Ray Tune, one at a
time, with the sampler that learns most. What they take is overhead, and so is the memory of the
process that drives them. Nothing else should run meanwhile.
"""

import os
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"

from ray import tune

from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.platform.ray_instance import ray_instance
from onestep.sweeps.book import Book
from onestep.sweeps.record import RESULTS, SAMPLES
from onestep.sweeps.searcher import NUMBER, REPORT
from onestep.sweeps.settings import settings_of
from onestep.sweeps.stepped import Row, Tell
from onestep.sweeps.study import begin, ended, open_storage, storage_url
from onestep.sweeps.tuning import run_trials

TRIALS: Final = 1000
CONCURRENCY: Final = 1
"""With more, trials that end at once have Ray Tune start processes that it does not need."""
MOST_MS: Final = 50.0
MOST_BYTES: Final = 2**30
_SAMPLES: Final = 1000


def simulated(config: Mapping[str, Any], *, tell: Tell) -> Row:
    """A trial that trains nothing."""
    del tell
    value = config[NUMBER] % 7 / 7.0
    return {SAMPLES: _SAMPLES, RESULTS: [[value, value, value]], REPORT: "{}"}


class Ends(tune.Callback):
    """Notes when trials end."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())

    def __getstate__(self) -> dict[str, Any]:
        return {}


def measure() -> dict[str, Any]:
    settings = replace(settings_of([]), trials=TRIALS, concurrency=CONCURRENCY)
    with tempfile.TemporaryDirectory() as name, ray_instance(num_cpus=CONCURRENCY):
        folder, ends = Path(name), Ends()
        study = begin(open_storage(storage_url(settings, folder)), "s", settings.objectives)
        book = Book(study, settings, base=settings.base, budgets=(_SAMPLES,), folder=folder)
        run_trials(
            simulated,
            book,
            resources={"cpu": 1},
            concurrency=CONCURRENCY,
            callbacks=[ends],
            folder=folder,
        )
        done = len(ended(study))
    # What comes before the first end is the start of Ray Tune.
    each = (ends.at[-1] - ends.at[0]) / (len(ends.at) - 1)
    parts = [ends.at[k : k + 101] for k in range(0, len(ends.at) - 100, 100)]
    return {
        "trials": done,
        "sampler": str(settings.sampler),
        "ms_per_trial": 1000.0 * each,
        "ms_per_trial_in_hundreds": [10.0 * (part[-1] - part[0]) for part in parts],
        "driver_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_least(numbers["trials"], TRIALS, number="trials"),
        at_most(numbers["ms_per_trial"], MOST_MS, number="ms_per_trial"),
        at_most(numbers["driver_bytes"], MOST_BYTES, number="driver_bytes"),
    ]


if __name__ == "__main__":
    run("sweep_overhead", measure, bars)
