"""What a sweep costs beside its trials: python benchmarks/sweep_overhead.py.

A thousand trials that train nothing go through book, searcher, scheduler, Ray Tune, the journal
with its runs of MLflow, the table of the progress and the weights that are kept, as those of a
sweep that trains do, one at a time, with the sampler that learns most: without early stopping, with
asha, and with asha whose rungs are runs of their own, each of which counts as a trial. What they
take is overhead, and so is the memory of the process that drives them, a fresh one for each rule,
with that of the one that writes its runs.
The last hundred, which have the most behind them, are told apart from the mean that is judged: to
learn from a thousand points takes the sampler of Optuna about ten milliseconds. Nothing else should
run meanwhile.
"""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
from ray import tune

from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.platform.evaluation.report import Measurement, Provenance, Report
from onestep.platform.ray_instance import ray_instance
from onestep.platform.registry.connection import Connection
from onestep.platform.registry.run import RunFacts
from onestep.platform.registry.run_writer import PROGRAM as WRITER
from onestep.platform.training.worker import CHECKPOINTS
from onestep.sweeps.board import Board
from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.journal import Journal
from onestep.sweeps.progress import Progress
from onestep.sweeps.record import COST, RESULTS, RUNG, SAMPLES, folder_of_trial
from onestep.sweeps.searcher import NUMBER, REPORT
from onestep.sweeps.settings import settings_of
from onestep.sweeps.stepped import Row, Tell
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import begin, open_storage, storage_url
from onestep.sweeps.tuning import run_trials

TRIALS: Final = 1000
CONCURRENCY: Final = 1
"""With more, trials that end at once have Ray Tune start processes that it does not need."""
MOST_MS: Final = 50.0
MOST_BYTES: Final = 2**30
_SAMPLES: Final = 1000
_ASHA: Final = Stopping(kind=StoppingKind.ASHA, grace_samples=125)
RULES: Final = {"none": Stopping(), "asha": _ASHA, "asha_replan": replace(_ASHA, replan=True)}
_DIGEST: Final = 64 * "0"
_NFES: Final = (1, 2, 4)
_METRICS: Final = ("fid", "sliced_w2", "mmd", "1nn_accuracy")


def simulated(
    config: Mapping[str, Any], *, tell: Tell, folder: str, report: str, measured_at: tuple[int, ...]
) -> Row:
    """A trial that trains nothing, and leaves weights and a report."""
    place = folder_of_trial(Path(folder), config[NUMBER], rung=config[RUNG])
    (place / CHECKPOINTS / "step-0000000008").mkdir(parents=True)
    value = config[NUMBER] % 7 / 7.0
    for samples in measured_at:
        tell(_row(value, samples))
    return {**_row(value, _SAMPLES), REPORT: report}


def _row(value: float, samples: int) -> Row:
    cost = json.dumps(asdict(Cost(samples=samples)))
    return {SAMPLES: samples, RESULTS: [[value, value, value]], COST: cost}


def _report() -> Report:
    """As many measurements as trials on digits have."""
    measurements = tuple(
        Measurement(
            name=f"eval/{name}",
            value=1.0,
            interval=(0.9, 1.1),
            count=1000,
            draws=4,
            space="data",
            nfe=nfe,
            sampler="jumps",
        )
        for nfe in _NFES
        for name in _METRICS
    )
    provenance = Provenance(
        model="trial",
        data="digits",
        data_digest=_DIGEST,
        features="coordinates",
        classifier_accuracy=None,
        count=1000,
        draws=4,
        seed=0,
    )
    return Report(provenance=provenance, measurements=measurements)


class Ends(tune.Callback):
    """Notes when trials end."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())

    def __getstate__(self) -> dict[str, Any]:
        return {}


def measure(trials: int = TRIALS) -> dict[str, Any]:
    fresh = multiprocessing.get_context("spawn")
    # By its name in the package, since the workers of Ray know no script that is run.
    one = import_module("onestep.benchmarks.sweep_overhead").measure_rule
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as pool:
        return {"rules": {rule: pool.submit(one, rule, trials).result() for rule in RULES}}


def measure_rule(rule: str, trials: int) -> dict[str, Any]:
    settings = replace(
        settings_of([]), trials=trials, concurrency=CONCURRENCY, scheduler=RULES[rule]
    )
    objectives, budgets = settings.objectives, settings.scheduler.budgets(_SAMPLES)
    with tempfile.TemporaryDirectory() as name, ray_instance(num_cpus=CONCURRENCY):
        folder, ends = Path(name), Ends()
        study = begin(open_storage(storage_url(settings, folder)), "s", objectives)
        book = Book(study, settings, base=settings.base, budgets=budgets, folder=folder)
        facts = RunFacts(
            experiment="digits",
            name="s",
            config=settings.to_dict(),
            overrides=settings.base,
            seed=settings.seed,
            data_digest=_DIGEST,
        )
        connection = Connection(f"sqlite:///{folder / 'mlflow.db'}")
        with (folder / "said.txt").open("w") as file, Board(file) as board:
            journal = Journal(
                study, settings, folder=folder, connection=connection, facts=facts, say=board.say
            )
            progress = Progress(study, settings, budgets=budgets, folder=folder, show=board.show)
            with journal:
                run_trials(
                    simulated,
                    book,
                    resources={"cpu": 1},
                    parts={
                        "folder": name,
                        "report": _report().to_json(),
                        "measured_at": () if settings.scheduler.replan else budgets[:-1],
                    },
                    concurrency=CONCURRENCY,
                    callbacks=[journal, progress, ends],
                    folder=folder,
                )
                begin_s = time.perf_counter()
                journal.flush()
                late_s = time.perf_counter() - begin_s
                writer_bytes = bytes_of_writer()
    # What comes before the first end is the start of Ray Tune; what is written late counts.
    each = (ends.at[-1] - ends.at[0] + late_s) / (len(ends.at) - 1)
    parts = [ends.at[k : k + 101] for k in range(0, len(ends.at) - 100, 100)]
    last = ends.at[-101:]
    return {
        "trials": len(ends.at),
        "sampler": str(settings.sampler),
        "ms_per_trial": 1000.0 * each,
        "ms_per_trial_in_hundreds": [10.0 * (part[-1] - part[0]) for part in parts],
        "ms_per_trial_of_the_last_hundred": 10.0 * (last[-1] - last[0]),
        "driver_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + writer_bytes,
    }


def bytes_of_writer() -> int:
    """Memory of the process that writes runs."""
    (writer,) = (one for one in psutil.Process().children() if WRITER in one.cmdline())
    return int(writer.memory_info().rss)


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        bar
        for rule, found in numbers["rules"].items()
        for bar in (
            at_least(found["trials"], TRIALS, rule=rule, number="trials"),
            at_most(found["ms_per_trial"], MOST_MS, rule=rule, number="ms_per_trial"),
            at_most(found["driver_bytes"], MOST_BYTES, rule=rule, number="driver_bytes"),
        )
    ]


if __name__ == "__main__":
    run("sweep_overhead", measure, bars)
