"""Measurement: the weights of a checkpoint that are served, and the report on them."""

from collections.abc import Sequence, Set
from pathlib import Path

from torch import Tensor

from ...methods.core.flow_map import FlowMap
from ...methods.core.sampler import AbstractSampler
from ..data.pairs import PairSet
from ..data.source import Dataset
from ..evaluation.benchmark import Benchmark, held_out_rows
from ..evaluation.evaluate import evaluate_on
from ..evaluation.report import Report
from ..experiment import ALL_SAMPLES, Experiment
from ..home import Home
from ..registry.model import at_scale
from . import checkpoint as checkpoints
from .assembly import Assembly
from .errand import Progress, run_errand
from .place import place_of
from .snapshot import average_of_width


def averaged_map(assembly: Assembly, folder: Path, width: float) -> FlowMap:
    """The moving average of a width, made from what a run has kept on its way.

    Args:
        assembly: The things of the experiment.
        folder: Folder of the run.
        width: Relative width of the average, in (0, 0.25].

    Returns:
        The network, in evaluation mode and with frozen parameters.
    """
    net = assembly.net()
    net.load_state_dict(average_of_width(folder, width))
    return net.float().eval().requires_grad_(False)


def served_map(assembly: Assembly, checkpoint: Path, data: Dataset | PairSet) -> FlowMap:
    """The moving average of a checkpoint that is evaluated and served.

    Args:
        assembly: The things of the experiment.
        checkpoint: One of its checkpoints.
        data: What was trained on.

    Returns:
        The network, in evaluation mode and with frozen parameters.
    """
    recipe = assembly.recipe(data.digest, after=checkpoints.step_of(checkpoint))
    found = checkpoints.load(checkpoint, recipe=recipe)
    averages: list[dict[str, Tensor]] = found.state["averages"]
    net = assembly.net()
    net.load_state_dict(averages[assembly.experiment.training.ema_served])
    return net.float().eval().requires_grad_(False)


def generator_of(experiment: Experiment, flow_map: FlowMap) -> FlowMap:
    """A trained map as it is sampled: where its trial computes, and at one guidance scale.

    Args:
        experiment: What was trained.
        flow_map: The map.
    """
    scale, device = experiment.evaluation.guidance, place_of(experiment).device
    return at_scale(flow_map.to(device), scale, model=experiment.name)


def check_evaluation(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse data that the evaluation of an experiment cannot be made on.

    Args:
        experiment: Its evaluation settings count.
        dataset: Its data.
    """
    settings = experiment.evaluation
    held_out_rows(dataset, settings.samples or ALL_SAMPLES, settings.seed)


def prepare_benchmark(experiment: Experiment, dataset: Dataset) -> Benchmark:
    """The yardstick that an experiment asks for; one serves all trials on the same data.

    Args:
        experiment: Its evaluation settings count.
        dataset: Its data.

    Returns:
        The yardstick.
    """
    settings = experiment.evaluation
    return Benchmark.prepare(
        dataset,
        home=Home.here().root,
        samples=settings.samples or ALL_SAMPLES,
        seed=settings.seed,
    )


def measured(
    experiment: Experiment,
    flow_map: FlowMap,
    benchmark: Benchmark,
    *,
    nfes: Sequence[int] = (),
    ema: str = "",
    sampler: AbstractSampler | None = None,
    names: Set[str] | None = None,
) -> Report:
    """The report on a trained map.

    Args:
        experiment: What was trained.
        flow_map: The map that it serves.
        benchmark: The yardstick.
        nfes: Numbers of network evaluations; none for those of the experiment.
        ema: Which weights these are; empty for the average that the experiment serves.
        sampler: Takes the place of the domain's own at its own number of evaluations, or None.
        names: Numbers that are wanted; None for all.

    Returns:
        The report.
    """
    training = experiment.training
    half_life = training.ema_half_lives[training.ema_served]
    return evaluate_on(
        benchmark,
        generator_of(experiment, flow_map),
        model=experiment.name,
        nfes=tuple(nfes) or experiment.evaluation.nfes,
        ema=ema or f"half-life {half_life:g} samples",
        sampler=sampler,
        names=names,
    )


def measured_at_workers(
    experiment: Experiment, flow_map: FlowMap, dataset: Dataset, *, folder: Path
) -> Report:
    """The report on a trained map, made where the workers compute.

    Args:
        experiment: What was trained.
        flow_map: The map that it serves.
        dataset: Its data.
        folder: Folder of the run.

    Returns:
        The report.
    """

    def measure(progress: Progress) -> Report:
        del progress
        return measured(experiment, flow_map, prepare_benchmark(experiment, dataset))

    return run_errand(measure, experiment, folder=folder)
