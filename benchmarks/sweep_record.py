"""Real trials of a sweep, each trained and measured at every rung of several ladders, and stored.

A rung is a run of its own, planned on its samples. Runs of the whole budget are measured on their
way too, where a rule without such plans would look at them, and once more from other noise.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import inf
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, final

import torch
from optuna.storages import InMemoryStorage

from onestep.benchmarks.record import RESULTS, machine, recipe_of
from onestep.platform.atomic import write_text
from onestep.platform.evaluation.report import Report
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import parts_of
from onestep.platform.training.measurement import prepare_benchmark
from onestep.platform.training.trial import measure, run_trial
from onestep.sweeps.book import Book
from onestep.sweeps.objective import Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import begin
from onestep.sweeps.trial import experiment_of

FOLDER: Final = RESULTS / "recorded_sweep"
TRIALS: Final = 64
SHORT: Final = 65_536
LONG: Final = 196_608
GRACE: Final = 4_096
LONG_GRACE: Final = 16_384
"""By less than this, short runs tell nothing of long ones."""
SMALL: Final = ("net=mlp", "training.batch_size=128")
"""What makes hundreds of runs out of hours of one core; otherwise the sweep is the shipped one."""
FAST: Final = ("net=mlp", "optimizer.lr=0.005", SMALL[1], "net.width=256", "net.depth=2")
"""The same with a learning rate for short runs."""
OTHER_NOISE: Final = 8
"""Seed of the second evaluation of a whole run."""
FRESH_SEEDS: Final = (1, 2, 3, 4)
"""Seeds with which the best are trained again, so that their value is not that of a lucky one."""
BEST: Final = 16
"""How many are."""
QUALITY: Final = {"name": "eval/frechet_features", "nfe": 1}
_WARM_UP: Final = 1_024
Stored = Mapping[str, Any]
"""What a record holds: its trials by number, and the best of them again."""
Look = Callable[[Experiment, Path, int], None]
Numbers = list[list[float]]
"""Value and interval of each objective."""
_DIGITS: Final = 6


@final
@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A sweep whose every trial is trained at every rung.

    Attributes:
        name: What it is called.
        base: Overrides of every trial beside those of the shipped sweep.
        samples: Samples of a whole run.
        grace: Samples before which no trial is judged.
        objectives: What is measured of a run, by label.
        more: Keys of the space beside those of the shipped one.
        reductions: A ladder for each; the first is that of the bars.
        on_the_way: Whether whole runs are measured at the rungs of the first ladder, too, and again
            from other noise, and the best of them trained with other seeds.
    """

    name: str
    base: tuple[str, ...]
    samples: int
    grace: int
    objectives: Mapping[str, Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)
    reductions: tuple[int, ...] = (3, 2, 4)
    on_the_way: bool = False

    @cached_property
    def settings(self) -> SweepSettings:
        """The sweep as the platform has it."""
        nfes = sorted({each["nfe"] for each in self.objectives.values() if "nfe" in each})
        common = [
            f"training.samples={self.samples}",
            "training.threads=1",
            f"evaluation.nfes={nfes}",
            "sweep.sampler=random",
        ]
        own = [f"sweep.trials={TRIALS}", "sweep.concurrency=1"]
        values = settings_of(["sweep=alpha_flow_curriculum", *self.base, *common, *own]).to_dict()
        values["space"] = {**values["space"], **self.more}
        values["objectives"] = dict(self.objectives)
        found = SweepSettings.from_dict(values)
        return replace(found, scheduler=self.stopping(self.reductions[0]))

    def stopping(self, reduction: int, kind: StoppingKind = StoppingKind.ASHA) -> Stopping:
        """Halving whose rungs are runs of their own."""
        return Stopping(kind=kind, grace_samples=self.grace, reduction=reduction, replan=True)

    @cached_property
    def ladders(self) -> dict[int, tuple[int, ...]]:
        """Samples of the rungs, by reduction, as the platform lays and checks them."""
        scheduled = {
            one: replace(self.settings, scheduler=self.stopping(one)) for one in self.reductions
        }
        return {one: Plan.of(settings).budgets for one, settings in scheduled.items()}

    @property
    def budgets(self) -> tuple[int, ...]:
        """Samples at which every trial is trained, rising."""
        return tuple(sorted({samples for each in self.ladders.values() for samples in each}))

    @cached_property
    def points(self) -> tuple[tuple[str, ...], ...]:
        """What the trials do not share, as the book of a sweep would start them."""
        settings = replace(self.settings, scheduler=Stopping())
        study = begin(InMemoryStorage(), self.name, settings.objectives)
        book = Book(study, settings, base=settings.base, budgets=self.budgets, folder=Path())
        found = []
        while (suggestion := book.suggest()) is not None:
            found.append(suggestion.own)
        return tuple(found)

    @property
    def digest(self) -> str:
        """What decides the record, in short."""
        experiment = experiment_of((*self.settings.base, *self.points[0]))
        base, space = self.settings.base, self.settings.space.to_dict()
        parts = [base, space, self.budgets, self.points, recipe_of(experiment)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where it is stored."""
        return FOLDER / f"{self.name}.json"

    def stored(self) -> dict[str, Any]:
        """What has been recorded so far: trials, and the best of them again, by number."""
        if not self.path.exists():
            return {"digest": self.digest, "sessions": [], "trials": {}, "again": {}}
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def keep(self, stored: Mapping[str, Any]) -> None:
        """Write it, one line for each trial."""
        trials = sorted(stored["trials"].items(), key=lambda item: int(item[0]))
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(trial)}" for k, trial in trials)
        rest = json.dumps({name: value for name, value in stored.items() if name != "trials"})
        head = rest.removesuffix("}")
        write_text(self.path, f'{head}, "trials": {{\n{lines}\n}}}}\n')

    def is_whole(self, stored: Mapping[str, Any]) -> bool:
        """Whether nothing is left to train."""
        return len(stored["trials"]) == len(self.points) and not self.left_again(stored)

    def left_again(self, stored: Mapping[str, Any]) -> dict[int, tuple[int, ...]]:
        """The seeds with which each of the best has still to be trained again, by number."""
        again = stored["again"]
        left = {k: FRESH_SEEDS[len(again.get(str(k), [])) :] for k in best(stored)}
        return {k: seeds for k, seeds in left.items() if seeds and self.on_the_way}


ONE: Final = {"quality": QUALITY, "deviation": {"name": "eval/1nn_deviation", "nfe": 1}}
CURRICULA: Final = Recorded(
    name="curricula",
    base=FAST,
    samples=LONG,
    grace=LONG_GRACE,
    objectives=ONE,
    reductions=(3,),
    on_the_way=True,
)
"""The shipped space of curricula as it is."""
SHORT_CURRICULA: Final = Recorded(
    name="short_curricula", base=FAST, samples=SHORT, grace=GRACE, objectives=ONE, on_the_way=True
)
"""The same with lower rungs that tell nothing; its record may stop anywhere."""
SLOW_CURRICULA: Final = Recorded(
    name="slow_curricula", base=SMALL, samples=SHORT, grace=GRACE, objectives=ONE, on_the_way=True
)
"""The same again, with a learning rate with which a rung tells even less."""
SIZES: Final = Recorded(
    name="sizes",
    base=SMALL,
    samples=SHORT,
    grace=GRACE,
    objectives={"quality": QUALITY, "cost": {"name": "cost/training_s"}},
    more={
        "net.width": {"kind": "log_int", "low": 32, "high": 256},
        "net.depth": {"kind": "int", "low": 1, "high": 4},
    },
    reductions=(3, 4),
)
"""The same space with the size of the network, on which quality and cost do not agree."""
RECORDED: Final = {each.name: each for each in (CURRICULA, SHORT_CURRICULA, SLOW_CURRICULA, SIZES)}


def _unseen(experiment: Experiment, checkpoint: Path, step: int) -> None:
    del experiment, checkpoint, step


@final
class Watch:
    """Counts the processor time of a training, without that of looking at its checkpoints.

    Args:
        look: Is shown each checkpoint and its step.
    """

    def __init__(self, look: Callable[[Path, int], None]) -> None:
        self._look, self._begin, self._looking = look, time.process_time(), 0.0
        self.training_s = 0.0
        """Seconds up to the last checkpoint."""

    @property
    def seconds(self) -> float:
        """All seconds so far, without those of looking."""
        return time.process_time() - self._begin - self._looking

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Take metrics or a checkpoint."""
        del metrics
        if checkpoint is None:
            return
        self.training_s, begin = self.seconds, time.process_time()
        self._look(checkpoint, step)
        self._looking += time.process_time() - begin

    def close(self) -> None:
        """Nothing is held back."""


@final
class Recorder:
    """Trains trials of a sweep and measures them.

    Args:
        recorded: The sweep.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._objectives: Objectives = recorded.settings.objectives
        self._whole_samples = recorded.budgets[-1]
        experiment = experiment_of((*recorded.settings.base, *recorded.points[0]))
        other = replace(experiment.evaluation, seed=OTHER_NOISE)
        dataset = parts_of(experiment).source.load()
        self._yardstick = prepare_benchmark(experiment, dataset)
        self._other = prepare_benchmark(replace(experiment, evaluation=other), dataset)
        self._run((*recorded.points[0], f"training.samples={_WARM_UP}"))

    def trial(self, number: int) -> dict[str, Any]:
        """A trial at every rung, each a run of its own."""
        *lower, _ = self._recorded.budgets
        own = self._recorded.points[number]
        runs = [self._run((*own, f"training.samples={samples}")) for samples in lower]
        whole = self._whole(own) if self._recorded.on_the_way else {"run": self._run(own)}
        runs.append(whole.pop("run"))
        return {"own": list(own), "runs": runs, **whole}

    def again(self, number: int, seeds: Sequence[int]) -> list[Any]:
        """The numbers of a trial's whole run, trained from other seeds."""
        own = self._recorded.points[number]
        return [self._run((*own, f"seed={seed}"))["numbers"] for seed in seeds]

    def _whole(self, own: tuple[str, ...]) -> dict[str, Any]:
        """A run of the whole budget, measured on its way and at its end once more."""
        at = self._recorded.ladders[self._recorded.reductions[0]][:-1]
        on_the_way: dict[int, Report] = {}
        other: list[Report] = []
        batch = experiment_of((*self._recorded.settings.base, *own)).training.batch_size

        def look(experiment: Experiment, checkpoint: Path, step: int) -> None:
            if (samples := step * batch) in at:
                on_the_way[samples] = measure(
                    experiment, checkpoint, self._yardstick, names=self._objectives.names
                )
            if step == experiment.training.steps:
                other.append(measure(experiment, checkpoint, self._other))

        run = self._run((*own, f"training.checkpoint_every={at[0]}"), look)
        return {
            "run": run,
            "on_the_way": [self._numbers(on_the_way.get(samples), 0.0) for samples in at],
            "other_noise": self._numbers(other[0] if other else None, 0.0),
        }

    def _run(self, own: tuple[str, ...], look: Look = _unseen) -> dict[str, Any]:
        """One run, trained and measured; one that fails has no numbers."""
        experiment = experiment_of((*self._recorded.settings.base, *own))
        watch = Watch(lambda checkpoint, step: look(experiment, checkpoint, step))
        training = experiment.training
        samples = training.steps * training.batch_size
        # As a sweep does: all numbers of whole runs, and of others those that are compared.
        names = None if samples == self._whole_samples else self._objectives.names
        with TemporaryDirectory() as folder:
            try:
                report = run_trial(
                    experiment,
                    watch,
                    folder=Path(folder),
                    benchmark=self._yardstick,
                    names=names,
                )
                training_s = watch.training_s
            except ValueError as error:
                print(own, error, flush=True)
                report, training_s = None, watch.seconds
        return {
            "samples": samples,
            "training_s": round(training_s, 3),
            "evaluation_s": round(watch.seconds - training_s, 3),
            "numbers": self._numbers(report, training_s),
        }

    def _numbers(self, report: Report | None, training_s: float) -> Numbers | None:
        if report is None:
            return None
        found = self._objectives.of(report, training_s=training_s)
        return [[_short(one.value), _short(one.low), _short(one.high)] for one in found]


def record(name: str, at_once: int) -> None:
    """Train what the record of a sweep lacks; each trial is stored when it has ended.

    Args:
        name: The sweep.
        at_once: Processes.

    Raises:
        ValueError: If what is stored is the record of another sweep.
    """
    recorded = RECORDED[name]
    stored = recorded.stored()
    if stored["digest"] != recorded.digest:
        raise ValueError(f"{recorded.path} is of another sweep: move it away to begin anew")
    if recorded.is_whole(stored):
        return
    stored["sessions"].append({"machine": machine(), "trials": len(stored["trials"])})
    with (
        TemporaryDirectory() as home,
        ProcessPoolExecutor(
            at_once, get_context("spawn"), initializer=_begin, initargs=(home,)
        ) as pool,
    ):
        left = [k for k in range(len(recorded.points)) if str(k) not in stored["trials"]]
        trials = {pool.submit(_trial, name, k): str(k) for k in left}
        for number, trial in _gathered(recorded, stored, trials):
            stored["trials"][number] = trial
        seeds = recorded.left_again(stored)
        again = {pool.submit(_again, name, k, own): str(k) for k, own in seeds.items()}
        for number, numbers in _gathered(recorded, stored, again):
            stored["again"].setdefault(number, []).extend(numbers)


def _gathered(
    recorded: Recorded, stored: Mapping[str, Any], asked: Mapping[Future[Any], str]
) -> Iterator[tuple[str, Any]]:
    """What has ended, each stored before the next."""
    for count, done in enumerate(as_completed(asked), 1):
        yield asked[done], done.result()
        recorded.keep(stored)
        print(f"{recorded.name}: {count} of {len(asked)}", flush=True)


def _begin(home: str) -> None:
    torch.set_num_threads(1)
    os.environ["ONESTEP_HOME"] = f"{home}/{os.getpid()}"


@cache
def _recorder(name: str) -> Recorder:
    """That of a process, which has its yardsticks from then on."""
    return Recorder(RECORDED[name])


def _trial(name: str, number: int) -> Any:
    return _recorder(name).trial(number)


def _again(name: str, number: int, seeds: Sequence[int]) -> Any:
    return _recorder(name).again(number, seeds)


def best(stored: Mapping[str, Any]) -> list[int]:
    """The trials that are best on the whole budget by the first number, the best first."""
    whole = {int(k): trial["runs"][-1]["numbers"] for k, trial in stored["trials"].items()}
    return sorted(whole, key=lambda k: whole[k][0][0] if whole[k] else inf)[:BEST]


def trials_of(stored: Stored) -> list[dict[str, Any]]:
    """The trials in the order of their numbers, up to the first that is missing."""
    found: list[dict[str, Any]] = []
    while (trial := stored["trials"].get(str(len(found)))) is not None:
        found.append(trial)
    return found


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
