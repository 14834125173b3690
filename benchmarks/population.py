"""Whether members that go on from each other beat as many that do not: benchmarks/population.py.

    python benchmarks/population.py [SEED ...]  those sets of first points, or all
    python benchmarks/population.py --judge     judge the stored numbers again

Four members of MeanFlow on eight Gaussians, the same four first points and the same samples in each
way: trained whole side by side (random search), as a population by pbt, and by pb2. The winner by
the search's own measurement is measured again on other noise, and one is trained again from its
overrides alone. Results go to benchmarks/results/population.json, where seeds that are not named
keep their numbers.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Final

import torch

from onestep.benchmarks.record import RESULTS, Bars, at_most, judged, machine, save
from onestep.platform.evaluation.benchmark import Benchmark
from onestep.platform.experiment import Evaluation, Experiment
from onestep.platform.training import checkpoint as checkpoints
from onestep.platform.training.assembly import assemble
from onestep.platform.training.measurement import prepare_benchmark
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import measure, train_trial
from onestep.platform.training.worker import CHECKPOINTS, work
from onestep.sweeps.ancestry import ancestry
from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Objective, Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import TrialRecord, folder_of_trial
from onestep.sweeps.report import ranked
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import begin, ended, open_storage
from onestep.sweeps.trial import experiment_of
from onestep.sweeps.winner import keep_leaders

NAME: Final = "population"
SEEDS: Final = (0, 1, 2)
MEMBERS: Final = 4
GENERATIONS: Final = 4
SAMPLES: Final = 24_000
_METRIC: Final = "eval/w2"
_BASE: Final = (
    "experiment=eight_gaussians_mean_flow",
    "learning_rate=constant",
    f"training.samples={SAMPLES}",
    "training.batch_size=128",
    "training.threads=1",
    "evaluation.nfes=[1]",
    "evaluation.samples=500",
)
ANEW: Final = Evaluation(nfes=(1,), samples=1000, seed=8)
"""How winners are measured again."""
_SPACE: Final = {
    "optimizer.lr": {"kind": "log_uniform", "low": 1e-4, "high": 3e-2},
    "method.times.diagonal.value": {"kind": "uniform", "low": 0.25, "high": 0.9},
    "method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0},
}
WAYS: Final = {
    "random": Stopping(),
    "pbt": Stopping(kind=StoppingKind.PBT, factor=1.5),
    "pb2": Stopping(kind=StoppingKind.PB2),
}


def settings_of(way: str, seed: int) -> SweepSettings:
    """The sweep of one way to train the members."""
    scheduler = WAYS[way]
    return SweepSettings(
        name=way,
        base=_BASE,
        space=Space.from_dict(_SPACE),
        objectives=Objectives(by_label={"w2": Objective(name=_METRIC, nfe=1)}),
        trials=MEMBERS * (GENERATIONS if scheduler.is_population else 1),
        population=MEMBERS,
        sampler=SamplerKind.RANDOM,
        seed=seed,
        scheduler=scheduler,
    )


def search(settings: SweepSettings, folder: Path, benchmark: Benchmark) -> list[TrialRecord]:
    """Run a sweep in this process, and give its trials from best to worst."""
    plan = Plan.of(settings)
    study = begin(open_storage(f"sqlite:///{folder / 'optuna.db'}"), "study", settings.objectives)
    book = Book(study, settings, base=plan.base, budgets=plan.budgets, folder=folder)
    while (asked := book.suggest()) is not None:
        experiment = experiment_of((*plan.base, *asked.own))
        since, samples = asked.span or (0, plan.samples)
        since_s = time.process_time()
        last = train_trial(
            experiment,
            MemoryReporter(),
            folder=folder_of_trial(folder, asked.number, rung=None),
            dataset=benchmark.dataset,
            begin=folder / asked.beginning.checkpoint if asked.beginning else None,
            until=samples // experiment.training.batch_size,
        )
        report = measure(experiment, last, benchmark)
        cost = Cost(training_s=time.process_time() - since_s, samples=samples - since)
        found = settings.objectives.of(report, training_s=cost.training_s)
        book.end(asked.number, found, samples=samples, report=report.to_json(), cost=cost)
        trials = ended(study)
        keep_leaders(folder, trials, settings.objectives, generations=settings.generations)
    return ranked(ended(study), settings.objectives)


def measure_way(
    way: str, seed: int, folder: Path, benchmark: Benchmark, anew: Benchmark
) -> dict[str, Any]:
    """What one way comes to from one set of first points, by two yardsticks."""
    settings = settings_of(way, seed)
    trials = search(settings, folder, benchmark)
    best, last = trials[0], [one for one in trials if one.samples == trials[0].samples]
    lineage = best.lineage
    own = settings.space.overrides(best.values) if lineage is None else lineage.own
    winner = experiment_of((*Plan.of(settings).base, *own))
    kept = checkpoints.latest(folder_of_trial(folder, best.number, rung=None) / CHECKPOINTS)
    assert kept is not None
    measured = measure(replace(winner, evaluation=ANEW), kept, anew).find(_METRIC, nfe=1)
    return {
        "winner": round(measured.value, 5),
        "by_search": round(best.results[0].value, 5),
        "members": [round(one.results[0].value, 5) for one in last],
        "samples": sum(one.cost.samples for one in trials),
        "core_s": round(sum(one.cost.training_s for one in trials), 1),
        "values": dict(best.values),
        "ancestry": ancestry(best, trials, settings.objectives) if lineage else [],
        "repeats": repeats(winner, kept, folder / "again"),
    }


def repeats(experiment: Experiment, kept: Path, folder: Path) -> bool:
    """Whether training from the overrides alone gives the weights of a checkpoint, bit for bit."""
    last = work(experiment.to_dict(), place=Place(), reporter=MemoryReporter(), folder=folder)
    assert last is not None
    states = [torch.load(one / "state.pt", weights_only=True)["state"] for one in (kept, last)]
    ours, theirs = ([state["online"], *state["averages"]] for state in states)
    return all(
        torch.equal(value, other[name])
        for one, other in zip(ours, theirs, strict=True)
        for name, value in one.items()
    )


def measure_seed(seed: int) -> dict[str, Any]:
    """All ways from one set of first points."""
    experiment = experiment_of(_BASE)
    dataset = assemble(experiment).source.load()
    benchmark, anew = (
        prepare_benchmark(replace(experiment, evaluation=one), dataset)
        for one in (experiment.evaluation, ANEW)
    )
    found = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            found[way] = measure_way(way, seed, Path(folder), benchmark, anew)
        print(seed, way, found[way], flush=True)
    return found


def ratio(stored: dict[str, Any], way: str) -> float:
    """The winner's distance over that of random search, in the geometric mean of the seeds."""
    logs = [
        math.log(one[way]["winner"] / one["random"]["winner"]) for one in stored["seeds"].values()
    ]
    return math.exp(mean(logs))


def bars(stored: dict[str, Any]) -> Bars:
    """A population is no worse than as many members side by side, and its winners repeat."""
    failed = sum(not seed[way]["repeats"] for seed in stored["seeds"].values() for way in WAYS)
    return [
        *(
            at_most(round(ratio(stored, way), 3), 1.0, ratio_to_random=way)
            for way in ("pbt", "pb2")
        ),
        at_most(failed, 0, number="winners_that_do_not_repeat"),
    ]


def main() -> None:
    """Search from the named seeds, or all, or judge what is stored."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", nargs="*", type=int, metavar="SEED")
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path, about = RESULTS / f"{NAME}.json", machine()
    seeds = dict(json.loads(path.read_text())["seeds"]) if path.exists() else {}
    size = {"members": MEMBERS, "generations": GENERATIONS, "samples": SAMPLES}
    for seed in () if arguments.judge else arguments.seeds or SEEDS:
        seeds[str(seed)] = {"machine": about, **measure_seed(seed)}
        stored = {**size, "seeds": seeds}
        save(NAME, judged(stored, bars(stored)))
    stored = {**size, "seeds": seeds}
    save(NAME, judged(stored, bars(stored)))


if __name__ == "__main__":
    main()
