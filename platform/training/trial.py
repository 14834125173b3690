"""Trials: one experiment trained and measured in this process, without a registered model."""

from collections.abc import Sequence
from pathlib import Path

from ..data.pairs import PairSet, read_pairs
from ..data.source import Dataset
from ..evaluation.benchmark import Benchmark
from ..evaluation.report import Report
from ..experiment import Experiment, name_of
from . import checkpoint as checkpoints
from .assembly import Assembly, assemble
from .derivative_choice import require_chosen
from .measurement import measured, served_map
from .place import place_of
from .reporter import Reporter
from .worker import CHECKPOINTS, work


def measure(
    experiment: Experiment,
    checkpoint: Path,
    benchmark: Benchmark,
    *,
    nfes: Sequence[int] = (),
) -> Report:
    """Evaluate the weights of a checkpoint that a run would serve.

    Args:
        experiment: What was trained.
        checkpoint: A checkpoint of it.
        benchmark: The yardstick.
        nfes: Numbers of network evaluations; none for those of the experiment.

    Returns:
        The report.
    """
    assembly = assemble(experiment)
    flow_map = served_map(assembly, checkpoint, trained_on(assembly, benchmark.dataset))
    return measured(experiment, flow_map, benchmark, nfes=nfes)


def run_trial(
    experiment: Experiment, reporter: Reporter, *, folder: Path, benchmark: Benchmark
) -> Report:
    """Train one experiment in this process, from its furthest checkpoint, and measure it.

    Args:
        experiment: What to train, by one worker.
        reporter: Told the metrics and the checkpoints, the one that is gone on from, too.
        folder: Where checkpoints are written.
        benchmark: The yardstick, on the data that are trained on.

    Returns:
        The report on the last checkpoint.

    Raises:
        ValueError: If the experiment asks for several workers or is refused, or diverges.
    """
    last = train_trial(experiment, reporter, folder=folder, dataset=benchmark.dataset)
    return measure(experiment, last, benchmark)


def train_trial(
    experiment: Experiment,
    reporter: Reporter,
    *,
    folder: Path,
    dataset: Dataset,
    begin: Path | None = None,
    until: int | None = None,
) -> Path:
    """Train one experiment in this process, from its furthest checkpoint.

    Args:
        experiment: What to train, by one worker.
        reporter: Told the metrics and the checkpoints, the one that is gone on from, too.
        folder: Where checkpoints are written.
        dataset: Its data, loaded.
        begin: Checkpoint of another run that it goes on from where it has none of its own; None
            for the start.
        until: Steps after which it ends; None for the whole run.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: If the experiment asks for several workers or is refused, or diverges.
    """
    check_trial(experiment)
    known = checkpoints.latest(folder / CHECKPOINTS)
    if known is not None:
        reporter.report({}, step=checkpoints.step_of(known), checkpoint=known)
    last = work(
        experiment.to_dict(),
        place=place_of(experiment),
        reporter=reporter,
        folder=folder,
        resume=begin if known is None else known,
        until=until,
        dataset=dataset,
    )
    assert last is not None, "the leading worker writes a checkpoint at the end"
    return last


def check_trial(experiment: Experiment) -> None:
    """Refuse an experiment that is none for one process, or that would not repeat exactly.

    Args:
        experiment: The experiment.

    Raises:
        ValueError: If it asks for several workers, Ray Train, or more than one GPU, has settings
            of what only a run has, or if its derivative is still to be chosen.
    """
    require_chosen(experiment)
    workers = experiment.workers
    if workers.uses_ray or workers.gpus_per_worker > 1.0:
        raise ValueError(
            "a trial trains in one process: workers.num_workers must be 1, workers.ray false and "
            f"workers.gpus_per_worker at most 1, got {workers.num_workers}, "
            f"{str(workers.ray).lower()} and {workers.gpus_per_worker:g}"
        )
    name = name_of(data=experiment.data, method=experiment.method)
    for key, got, default in (
        ("run", experiment.run, ""),
        ("name", experiment.name, name),
        ("storage.wandb", experiment.storage.wandb, False),
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
