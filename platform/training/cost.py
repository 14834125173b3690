"""The cost of an experiment before it is run: memory, operations and, where asked for, time."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..experiment import Experiment
from .assembly import assemble
from .footprint import assembly_of_shapes, frozen_of_shapes, held, learning_of_shapes
from .step_time import step_time
from .workload import Workload, workload


def cost_of(
    experiment: Experiment, stages: Mapping[str, Experiment], *, is_measured: bool
) -> dict[str, Any]:
    """What an experiment will take, for one worker.

    Args:
        experiment: The experiment.
        stages: Those of earlier stages, by their names.
        is_measured: Whether a step is timed on this machine.

    Returns:
        Plain values: ``steps``, ``parameters``, ``memory`` in bytes, ``compute`` in floating-point
        operations, and ``time`` where it is measured. What cannot be counted is None.
    """
    training = experiment.training
    assembly = assembly_of_shapes(experiment)
    frozen, assumed = frozen_of_shapes(assembly, stages)
    learning = learning_of_shapes(assembly, frozen)
    parts = held(learning)
    try:
        work: Workload | None = workload(assembly, learning)
    except (RuntimeError, ValueError):
        # A loss that asks for values, or refuses what stands for a teacher that is not there.
        work = None
    summary: dict[str, Any] = {
        "steps": training.steps,
        "parameters": sum(p.numel() for p in learning.nets.online.parameters()),
        "memory": {
            "held": parts,
            "held_in_all": sum(parts.values()),
            "activations_estimated": None if work is None else work.activations,
            "sizes_assumed": list(assumed),
        },
        "compute": {
            "flops_per_sample": None if work is None else work.flops,
            "flops_in_all": None if work is None else work.flops * training.samples,
        },
    }
    if is_measured:
        summary["time"] = asdict(step_time(assemble(experiment), frozen))
    return summary
