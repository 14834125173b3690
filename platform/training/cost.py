"""The cost of an experiment before it is run: memory, operations and time."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...methods.core.flow_map import FlowMap
from ...methods.core.grid import UniformGrid
from ...methods.core.ode import Heun
from ..experiment import Experiment
from .assembly import Assembly, assemble
from .derivative_choice import with_forward_mode
from .footprint import (
    assembly_of_shapes,
    frozen_of_shapes,
    held,
    learning_of_shapes,
    pair_teacher_of_shapes,
)
from .least_time import least_time
from .step_time import step_time
from .workload import Workload, evaluation_flops, workload


def cost_of(
    experiment: Experiment, stages: Mapping[str, Experiment], *, is_measured: bool
) -> dict[str, Any]:
    """What an experiment will take, for one worker.

    Args:
        experiment: The experiment.
        stages: Those of earlier stages, by their names.
        is_measured: Whether a step is timed on this machine, too.

    Returns:
        Plain values: ``steps``, ``parameters``, ``memory`` in bytes, ``compute`` in floating-point
        operations, that of pairs apart, and ``time``: at least what the operations take at the
        best speed of this machine, and what its steps take where they are measured. What cannot be
        counted is None.

    Raises:
        ValueError: If a registered parent does not fit, or the loss refuses the experiment.
    """
    training = experiment.training
    assembly = assembly_of_shapes(with_forward_mode(experiment))
    frozen, assumed = frozen_of_shapes(assembly, stages)
    learning = learning_of_shapes(assembly, frozen)
    parts = held(learning)
    try:
        work: Workload | None = workload(assembly, learning)
    except RuntimeError:  # a loss that asks for values
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
    teacher = pair_teacher_of_shapes(assembly, stages)
    if teacher is not None:
        summary["compute"]["pairs"] = _cost_of_pairs(assembly, teacher)
    summary["time"] = asdict(least_time(experiment, summary["compute"]["flops_in_all"]))
    if is_measured:
        summary["time"] |= asdict(step_time(assemble(experiment), frozen))
    return summary


def _cost_of_pairs(assembly: Assembly, teacher: FlowMap) -> dict[str, int]:
    """Operations of making pairs. How many real data are paired is known once they are read."""
    pairs = assembly.experiment.pairs
    evaluations = Heun(grid=UniformGrid(steps=pairs.steps)).evaluations(teacher.domain)
    networks = 1 if pairs.guidance == 1.0 else 2
    each = networks * evaluations * evaluation_flops(assembly, teacher)
    return {"flops_per_pair": each, "flops_of_generated": each * pairs.count}
