"""Trials: one experiment trained and measured from this process, without a registered model."""

from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path

from ..data.pairs import PairSet, read_pairs
from ..data.source import Dataset
from ..evaluation.benchmark import Benchmark
from ..evaluation.report import Report
from ..experiment import Experiment, name_of
from . import checkpoint as checkpoints
from .assembly import Assembly, Models, assemble
from .derivative_choice import require_chosen
from .measurement import measured, served_map
from .perception import require_perception
from .place import place_of
from .ray_checkpoints import latest, remove
from .ray_train import Loaded, train_with_ray
from .reporter import Reporter
from .worker import CHECKPOINTS, work


def measure(
    experiment: Experiment,
    checkpoint: Path,
    benchmark: Benchmark,
    *,
    nfes: Sequence[int] = (),
    names: Set[str] | None = None,
) -> Report:
    """Evaluate the weights of a checkpoint that a run would serve.

    Args:
        experiment: What was trained.
        checkpoint: A checkpoint of it.
        benchmark: The yardstick.
        nfes: Numbers of network evaluations; none for those of the experiment.
        names: Numbers that are wanted; None for all.

    Returns:
        The report.
    """
    assembly = assemble(experiment)
    flow_map = served_map(assembly, checkpoint, trained_on(assembly, benchmark.dataset))
    return measured(experiment, flow_map, benchmark, nfes=nfes, names=names)


def run_trial(
    experiment: Experiment,
    reporter: Reporter,
    *,
    folder: Path,
    benchmark: Benchmark,
    names: Set[str] | None = None,
) -> Report:
    """Train one experiment, from its furthest checkpoint, and measure it.

    Args:
        experiment: What to train.
        reporter: Told the metrics and the checkpoints, the one that is gone on from, too.
        folder: Where checkpoints are written.
        benchmark: The yardstick, on the data that are trained on.
        names: Numbers that are wanted; None for all.

    Returns:
        The report on the last checkpoint.

    Raises:
        ValueError: If the experiment is refused, or diverges.
    """
    last = train_trial(experiment, reporter, folder=folder, dataset=benchmark.dataset)
    return measure(experiment, last, benchmark, names=names)


def train_trial(
    experiment: Experiment,
    reporter: Reporter,
    *,
    folder: Path,
    dataset: Dataset,
    begin: Path | None = None,
    until: int | None = None,
    stops: Sequence[int] = (),
    models: Models | None = None,
    loaded: Loaded | None = None,
) -> Path:
    """Train one experiment, from its furthest checkpoint.

    One worker is this process. Several are a group of Ray Train, which ends wherever the reporter
    is to see a checkpoint and begins again after it: where it decides to leave, no worker is left.

    Args:
        experiment: What to train.
        reporter: Told the metrics and the checkpoints, the one that is gone on from, too. The
            metrics of a group come by another thread.
        folder: Where checkpoints are written.
        dataset: Its data, loaded.
        begin: Checkpoint of another run that it goes on from where it has none of its own; None
            for the start.
        until: Steps after which it ends; None for the whole run.
        stops: Steps on the way whose checkpoints the reporter sees in any case; a group ends there.
        models: Registered models that have been loaded, by reference; others are loaded here.
        loaded: Data and models in Ray's memory, for groups; None to put them there for each.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: If the experiment is refused, or diverges.
    """
    check_trial(experiment)
    own = folder / CHECKPOINTS
    known = checkpoints.latest(own)
    if experiment.workers.uses_ray and (found := latest(folder)) is not None:
        known = checkpoints.adopt(own, found)
    if known is not None:
        reporter.report({}, step=checkpoints.step_of(known), checkpoint=known)
    if experiment.workers.uses_ray:
        ends = [*stops, experiment.training.steps if until is None else until]
        train = partial(train_with_ray, dataset=dataset, models=models, loaded=loaded)
        return _in_groups(
            experiment, reporter, folder=folder, begin=known or begin, ends=ends, train=train
        )
    last = work(
        experiment.to_dict(),
        place=place_of(experiment),
        reporter=reporter,
        folder=folder,
        resume=begin if known is None else known,
        until=until,
        shown=stops,
        dataset=dataset,
        models=models,
    )
    assert last is not None, "the leading worker writes a checkpoint at the end"
    return last


def _in_groups(
    experiment: Experiment,
    reporter: Reporter,
    *,
    folder: Path,
    begin: Path | None,
    ends: Sequence[int],
    train: Callable[..., Path],
) -> Path:
    """Train by one group of workers after the other, and keep the last checkpoint of each."""
    last, own = begin, folder / CHECKPOINTS
    for end in ends:
        if last is not None and checkpoints.step_of(last) >= end:
            continue
        made = train(experiment, folder=folder, reporter=reporter, begin=last, until=end)
        last = checkpoints.adopt(own, made)
        remove(folder)  # Ray's copy; the next group goes on from ours
        checkpoints.prune(own, keep=experiment.training.keep_checkpoints)
        reporter.report({}, step=checkpoints.step_of(last), checkpoint=last)
    assert last is not None, "a trial takes at least a step"
    return last


def check_trial(experiment: Experiment) -> None:
    """Refuse an experiment that is none for a trial, or that would not repeat exactly.

    Args:
        experiment: The experiment.

    Raises:
        ValueError: If it asks for several GPUs in one process, or a cluster of its own, has
            settings of what only a run has, or if its derivative or its perceptual distance is
            still to be chosen.
    """
    require_chosen(experiment)
    require_perception(experiment)
    workers = experiment.workers
    if workers.gpus_per_worker > 1.0:
        raise ValueError(
            "workers.gpus_per_worker must be at most 1 in a trial, whose workers each compute on "
            f"one, got {workers.gpus_per_worker:g}; workers.num_workers takes more of them"
        )
    name = name_of(data=experiment.data, method=experiment.method)
    for key, got, default in (
        ("run", experiment.run, ""),
        ("name", experiment.name, name),
        ("storage.wandb", experiment.storage.wandb, False),
        ("workers.address", workers.address, ""),
    ):
        if got != default:
            raise ValueError(f"{key} has no effect on a trial: leave it out, got {got!r}")


def trained_on(assembly: Assembly, dataset: Dataset) -> Dataset | PairSet:
    """The data of a trial, or the pairs where its method trains on pairs.

    Args:
        assembly: The things of the trial.
        dataset: The data.
    """
    pairs = assembly.experiment.parents.pairs
    if assembly.learner.needs.pairs is None or pairs is None:
        return dataset
    return read_pairs(Path(pairs))
