"""One trial in a process of Ray Tune: compose the overrides, train, measure, report."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, final

import torch

from ..platform.atomic import write_json
from ..platform.configuration import compose
from ..platform.data.source import Dataset
from ..platform.evaluation.benchmark import Benchmark
from ..platform.evaluation.report import Report
from ..platform.experiment import Experiment, Training
from ..platform.home import Home
from ..platform.password import hide_passwords
from ..platform.training import checkpoint as checkpoints
from ..platform.training.assembly import Models, assemble
from ..platform.training.checkpoint import digest_of
from ..platform.training.errors import FolderNotSeen, TrainingDiverged
from ..platform.training.guard import RETURNED_TO, returns_in
from ..platform.training.nodes import refusal_here
from ..platform.training.ray_train import Loaded
from ..platform.training.rehearsal import rehearse
from ..platform.training.reporter import WandbReporter
from ..platform.training.trial import train_trial, trained_on
from .after_training import AfterTraining
from .bench import Bench
from .cost import Cost
from .lineage import Beginning
from .losses import add_loss
from .objective import Objectives
from .outage import is_outage
from .posthoc import PostHoc, Timing
from .posthoc_setting import Setting
from .record import (
    CHOSEN,
    COST,
    DIVERGED,
    ERROR,
    OUTAGE,
    OVERRIDES,
    RESULTS,
    RETURNS,
    RUNG,
    SAMPLES,
    SECONDS_FILE,
    WENT_BACK,
    folder_of_trial,
)
from .searcher import BEGINNING, KNOWN, NUMBER, REPORT, SPAN, SUBTRIAL
from .stepped import Row, Tell
from .stopwatch import Stopwatch
from .subtrial import SubTrial

LOSS: Final = "loss"
_PAUSE_S: Final = 2.0
_OUTAGE_S: Final = 30.0
"""A server that is started again takes about as long."""
_ONLINE: Final = "loss/online"
_PROJECT: Final = "onestep"


@final
class TuneReporter:
    """Sends progress to Ray Tune now and then, and the objectives of each checkpoint on the way.

    The losses are kept in the trial's folder.

    Args:
        experiment: What is trained.
        objectives: The numbers to improve.
        benchmark: The yardstick.
        folder: Folder of the trial.
        budgets: Samples at which checkpoints on the way are measured.
        timing: How latency is measured.
        tell: Told rows.
        since: Samples that the state had seen from which the trial began.
        wandb: Told the same; None for nobody.
    """

    def __init__(
        self,
        experiment: Experiment,
        objectives: Objectives,
        benchmark: Benchmark,
        *,
        folder: Path,
        budgets: Sequence[int],
        timing: Timing,
        tell: Tell,
        since: int = 0,
        wandb: WandbReporter | None = None,
    ) -> None:
        self._experiment, self._objectives, self._benchmark = experiment, objectives, benchmark
        self._folder, self._timing, self._wandb, self._tell = folder, timing, wandb, tell
        self._budgets, self._file, self._sent_at = budgets, folder / SECONDS_FILE, 0.0
        self._first = self._samples = since
        before = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.training_s: float = before.get("training_s", 0.0)
        """Seconds of processor time up to the last checkpoint, whatever process spent them."""
        self._trained_before: int | None = before.get("samples")
        self._repeated = 0
        self._posthoc_s = 0.0
        self._watch = Stopwatch(experiment.workers)
        self._begin = time.monotonic() - before.get("wall_s", 0.0)

    @property
    def cost(self) -> Cost:
        """What the trial has taken so far."""
        workers, wall_s = self._experiment.workers, time.monotonic() - self._begin
        return Cost(
            wall_s=wall_s,
            training_s=self.training_s,
            gpu_s=wall_s * workers.num_workers * workers.gpus_per_worker,
            samples=self._samples - self._first + self._repeated,
            posthoc_s=self._posthoc_s,
        )

    def add_posthoc(self, one: SubTrial, *, is_known: bool = False) -> None:
        """Take a sub-trial.

        Args:
            one: What was tried on the trial's weights.
            is_known: Whether it was tried before the trial was cut off, and is known by now.
        """
        self._posthoc_s += one.seconds
        if is_known:
            self._begin -= one.seconds
        else:
            self._tell({SUBTRIAL: json.dumps(one.to_dict())})

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Take metrics or a checkpoint."""
        training = self._experiment.training
        self._samples = samples = step * training.batch_size
        if (to := metrics.get(RETURNED_TO)) is not None:  # what follows is trained once more
            self._samples = int(to) * training.batch_size
            self._repeated += samples - self._samples
            if not self._experiment.workers.uses_ray:  # a group begins where it was measured last
                self._tell({WENT_BACK: self._samples})
        # The checkpoint that is gone on from, or none where rows come first.
        self._go_on_from(self._first if checkpoint is None else samples)
        if checkpoint is not None:
            self.training_s += self._watch.seconds
            write_json(self._file, asdict(self.cost))
            if samples in self._budgets and step < training.steps:
                self._measure(checkpoint, samples)
            self._watch.restart()  # measuring is not training
            return
        self._watch.note(metrics)
        if self._experiment.workers.uses_ray and _is_kept(step, training):
            # Ray has it until the group ends, and from there a trial goes on that was cut off.
            spent = self.training_s + self._watch.seconds
            write_json(self._file, asdict(replace(self.cost, training_s=spent)))
        if self._wandb is not None:
            self._wandb.report(metrics, step=step)
        loss = metrics.get(_ONLINE)  # missing where the network of a game rests
        if loss is None:
            return
        add_loss(self._folder, samples, loss)
        # Those of a group come by another thread, but a trial tells of itself in its own.
        if self._experiment.workers.uses_ray:
            return
        if time.monotonic() - self._sent_at >= _PAUSE_S:
            self._sent_at = time.monotonic()
            self._tell({SAMPLES: samples, LOSS: loss})

    def close(self) -> None:
        """Nothing is held back."""

    def _go_on_from(self, samples: int) -> None:
        """Count what was trained before the trial was cut off, and is trained once more."""
        if self._trained_before is not None:
            self._repeated = max(0, self._trained_before - (samples - self._first))
            self._trained_before = None

    def _measure(self, checkpoint: Path, samples: int) -> None:
        bench = Bench(
            overrides=self._experiment.overrides,
            checkpoint=checkpoint,
            folder=self._folder,
            timing=self._timing,
        )
        nfes = self._objectives.nfes
        names = self._objectives.names
        (report,) = bench.reports(Setting(), [self._benchmark], nfes=nfes, names=names)
        self._tell(self.row(report, samples))

    def row(self, report: Report, samples: int) -> dict[str, Any]:
        """What Ray Tune is told of a measured checkpoint.

        Args:
            report: Its measurements.
            samples: Samples seen.
        """
        found = self._objectives.of(report, training_s=self.training_s)
        numbers = [[one.value, one.low, one.high] for one in found]
        if self._wandb is not None:
            named = zip(self._objectives.labels, found, strict=True)
            values = {f"sweep/{label}": one.value for label, one in named}
            step = samples // self._experiment.training.batch_size
            self._wandb.report({**report.metrics(), **values}, step=step)
        return {SAMPLES: samples, RESULTS: numbers, COST: json.dumps(asdict(self.cost))}


def _is_kept(step: int, training: Training) -> bool:
    """Whether a checkpoint on the way is due after a step."""
    between = training.checkpoint_every
    return between > 0 and step % training.every(between) == 0


def _is_whole(config: Mapping[str, Any], training: Training, *, last_rung: int) -> bool:
    """Whether a trial ends with the whole budget."""
    planned = training.steps * training.batch_size
    _, until = config[SPAN] or (0, planned)
    return until == planned and config[RUNG] in (None, last_rung)


def experiment_of(overrides: tuple[str, ...]) -> Experiment:
    """The experiment that ``onestep train`` composes from the same overrides."""
    return Experiment.from_dict(compose("train", overrides), overrides)


def try_overrides(
    config: Mapping[str, Any],
    *,
    tell: Tell,
    objectives: Mapping[str, Any],
    budgets: Sequence[int],
    last_rung: int,
    folder: str,
    base: tuple[str, ...],
    benchmark: Benchmark,
    environment: Mapping[str, str],
    wandb: bool,
    posthoc: Mapping[str, Any] | None = None,
    latency: Mapping[str, int] | None = None,
    seed: int = 0,
    tuning: Benchmark | None = None,
    models: Models | None = None,
    loaded: Loaded | None = None,
    mark: tuple[Path, str] | None = None,
    pause_s: float = _OUTAGE_S,
) -> Row:
    """Run one trial, from its last checkpoint if it was cut off.

    Args:
        config: What the searcher suggested.
        tell: Told rows on the way.
        objectives: The numbers to improve, as plain values.
        budgets: Samples at which checkpoints on the way are measured.
        last_rung: The rung of a whole trial, where rungs are runs of their own.
        folder: Folder of the sweep.
        base: Overrides of every trial.
        benchmark: The yardstick.
        environment: Where the home and the stores are.
        wandb: Whether Weights & Biases is told of it.
        posthoc: What is tried on its weights, as plain values; None for nothing.
        latency: How latency is measured, as plain values; None for the defaults.
        seed: Seed of the sweep.
        tuning: The yardstick that settings are chosen by; None where none are tried.
        models: Registered models that have been loaded, by reference; the trial loads others.
        loaded: Data and models in Ray's memory, for the workers of groups; None for one worker.
        mark: A file by which the folder is known, and what it holds; None where all trials are on
            this machine.
        pause_s: Seconds for which a trial waits that met an outage, before it is tried again.

    Returns:
        The last row: what it has reached, or how it failed.

    Raises:
        Exception: Whatever the trial did not foresee.
    """
    os.environ.update(environment)
    wanted, begin = Objectives.from_dict(objectives), time.monotonic()
    after = AfterTraining(
        objectives=wanted,
        posthoc=PostHoc.from_dict(posthoc),
        timing=Timing(**(latency or {})),
        seed=seed,
        judging=benchmark,
        tuning=tuning,
    )
    reporter: TuneReporter | None = None
    try:
        if mark is not None and (refusal := refusal_here(mark)) is not None:
            raise FolderNotSeen(refusal)
        experiment = experiment_of((*base, *config[OVERRIDES]))
        torch.set_num_threads(max(1, experiment.training.threads))
        place = folder_of_trial(Path(folder), config[NUMBER], rung=config[RUNG])
        training = experiment.training
        since, samples = config[SPAN] or (0, training.steps * training.batch_size)
        _warm_up(experiment, benchmark.dataset, models)
        with _telling_wandb(experiment, config, Path(folder).name, is_asked=wandb) as told:
            reporter = TuneReporter(
                experiment,
                wanted,
                benchmark,
                folder=place,
                budgets=budgets,
                timing=after.timing,
                tell=tell,
                since=since,
                wandb=told,
            )
            checkpoint = train_trial(
                experiment,
                reporter,
                folder=place,
                dataset=benchmark.dataset,
                begin=_beginning(config[BEGINNING], Path(folder)),
                until=samples // training.batch_size,
                stops=[budget // training.batch_size for budget in budgets],
                models=models,
                loaded=loaded,
            )
            known = [SubTrial.from_dict(one) for one in config.get(KNOWN, ())]
            for one in known:
                reporter.add_posthoc(one, is_known=True)
            bench = Bench(
                overrides=experiment.overrides,
                checkpoint=checkpoint,
                folder=place,
                timing=after.timing,
            )
            judged = after.judge(
                bench,
                number=config[NUMBER],
                is_whole=_is_whole(config, training, last_rung=last_rung),
                training_s=reporter.training_s,
                known=known,
                told=reporter.add_posthoc,
            )
            last = {**reporter.row(judged.report, samples), REPORT: judged.report.to_json()}
            last |= {CHOSEN: json.dumps(judged.chosen)} if judged.chosen else {}
            returns = _returns(experiment, checkpoint, benchmark.dataset)
            last |= {RETURNS: json.dumps(returns)} if returns else {}
        return last
    except Exception as error:
        home = Home.here()
        if is_outage(error, places=(Path(folder), home.root, Path(home.artifacts))):
            tell({OUTAGE: _sentence(error)})
            time.sleep(pause_s)  # it is tried again when this process is gone
            raise
        cost = Cost(wall_s=time.monotonic() - begin) if reporter is None else reporter.cost
        failure: dict[str, Any] = {ERROR: _sentence(error), COST: json.dumps(asdict(cost))}
        failure |= {DIVERGED: True} if isinstance(error, TrainingDiverged) else {}
        # A diverged or refused trial is a result; the sweep goes on.
        if isinstance(error, ValueError):
            return failure
        tell(failure)
        raise


def _warm_up(experiment: Experiment, dataset: Dataset, models: Models | None) -> None:
    """Compute a loss before time is taken: the first one in a process imports and sets up much.

    The workers of groups are new to each trial, so that all groups take what this takes.
    """
    if not experiment.workers.uses_ray:
        assembly = replace(assemble(experiment), models=models or {})
        rehearse(assembly, trained_on(assembly, dataset))


def _returns(experiment: Experiment, checkpoint: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """When and why a trial was sent back to an earlier checkpoint."""
    assembly = assemble(experiment)
    step, data = checkpoints.step_of(checkpoint), trained_on(assembly, dataset)
    recipe = assembly.recipe(data.digest, after=step)
    return returns_in(checkpoints.load(checkpoint, recipe=recipe).state)


def _beginning(written: Mapping[str, str] | None, folder: Path) -> Path | None:
    """The checkpoint that a trial of a population goes on from.

    Args:
        written: Where it begins, as the searcher wrote it, or None.
        folder: Folder of the sweep.

    Returns:
        The checkpoint, or None.

    Raises:
        ValueError: If it is not the one that the trial was to begin from.
    """
    if written is None:
        return None
    beginning = Beginning(**written)
    place = folder / beginning.checkpoint
    if (found := digest_of(place)) != beginning.sha256:
        raise ValueError(
            f"checkpoint {place} is another than the trial began from: its sha256 is "
            f"{found[:12]}..., not {beginning.sha256[:12]}..."
        )
    return place


@contextmanager
def _telling_wandb(
    experiment: Experiment, config: Mapping[str, Any], sweep: str, *, is_asked: bool
) -> Iterator[WandbReporter | None]:
    """The Weights & Biases run of a trial, in the group of its sweep, or None.

    A trial that was cut off goes on with the run that it had. A rung that is a run of its own is
    one there, too.
    """
    if not is_asked:
        yield None
        return
    number, rung = config[NUMBER], config[RUNG]
    name = f"{sweep}-{number}" if rung is None else f"{sweep}-{number}-rung-{rung}"
    run = WandbReporter(
        folder=Home.here().wandb,
        project=_PROJECT,
        name=name,
        run_id=name,
        config=experiment.to_dict(),
        group=sweep,
    )
    try:
        yield run
    except Exception:
        run.fail()
        raise
    except BaseException:  # Ray Tune stops a trial by leaving it
        run.close()
        raise
    run.close()


def _sentence(error: Exception) -> str:
    return hide_passwords(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
