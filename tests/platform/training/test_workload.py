"""Operations and activations of a step, against counts by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import nn

from onestep.methods.core.method import AbstractLearner
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment, Training
from onestep.platform.training.assembly import assemble
from onestep.platform.training.cost import cost_of
from onestep.platform.training.footprint import (
    assembly_of_shapes,
    frozen_of_shapes,
    learning_of_shapes,
)
from onestep.platform.training.step_time import step_time
from onestep.platform.training.workload import Workload, workload
from onestep.tests.platform.training.catalogue import CATALOGUE
from onestep.tests.platform.training.recipe import (
    CURIOUS,
    FLOW_MATCHING,
    MEAN_FLOW,
    REFLOW,
    SHORTCUT,
    TAUGHT_GAME,
    recipe,
)

TILING: Final = "onestep.methods.core.tiling"
CLASSES: Final = {
    "progressive_distillation": "ProgressiveDistillation",
    "truncated_consistency": "TruncatedConsistency",
}


def experiment(method: dict[str, Any], **training: Any) -> Experiment:
    values = recipe(method, steps=1000, training={"precision": "float32", **training})
    if method is TAUGHT_GAME:
        values["parents"] = {"teacher": "points/1"}
    return Experiment.from_dict(values)


def counted(run: Experiment) -> Workload:
    assembly = assembly_of_shapes(run)
    nets, _ = frozen_of_shapes(assembly, dict.fromkeys(run.parents.frozen.values(), run))
    return workload(assembly, learning_of_shapes(assembly, nets))


def products(run: Experiment) -> int:
    """Operations of one forward pass of one row, from the sizes of the linear layers."""
    layers = [layer for layer in assemble(run).net().modules() if isinstance(layer, nn.Linear)]
    return sum(2 * layer.weight.numel() for layer in layers)


def test_flow_matching_takes_three_forward_passes_but_for_the_gradient_of_its_input() -> None:
    run = experiment(FLOW_MATCHING)
    assert 2.5 * products(run) < counted(run).flops <= 3.0 * products(run)


def test_a_method_that_differentiates_forward_takes_more() -> None:
    plain, forward = (counted(experiment(method)).flops for method in (FLOW_MATCHING, MEAN_FLOW))
    # At most two forward passes and as much again for their tangents on top.
    assert plain < forward <= 3 * plain


def test_a_game_is_the_mean_over_its_turns() -> None:
    alone = counted(experiment(FLOW_MATCHING)).flops
    assert counted(experiment(TAUGHT_GAME)).flops > alone


def test_activations_grow_with_the_rows_that_a_worker_holds_at_once() -> None:
    whole = counted(experiment(FLOW_MATCHING)).activations
    assert counted(experiment(FLOW_MATCHING, accumulate=4)).activations == whole // 4
    run = experiment(FLOW_MATCHING)
    shared = replace(run, workers=replace(run.workers, num_workers=2))
    assert counted(shared).activations == whole // 2


def test_activations_are_what_the_backward_pass_of_real_tensors_waits_with() -> None:
    run = experiment(FLOW_MATCHING, shards=1)
    net = assemble(run).net()
    sizes = dict[int, int]()
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not any(tensor.untyped_storage().data_ptr() == p.data_ptr() for p in net.parameters()):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    x, t = torch.randn(32, 2), torch.rand(32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = (net(x, t, t) - x).square().sum()
    assert loss.requires_grad
    assert 0.8 * sum(sizes.values()) <= counted(run).activations <= 1.3 * sum(sizes.values())


def test_what_cannot_be_counted_is_none() -> None:
    values = recipe(CURIOUS, steps=10)
    shown = cost_of(Experiment.from_dict(values), {}, is_measured=False)
    assert shown["compute"] == {"flops_per_sample": None, "flops_in_all": None}
    assert shown["time"]["hours_at_least"] is None
    assert shown["memory"]["activations_estimated"] is None
    assert shown["memory"]["held_in_all"] == sum(shown["memory"]["held"].values())


@pytest.mark.parametrize("method", [FLOW_MATCHING, TAUGHT_GAME], ids=["method", "game"])
def test_a_step_is_timed_and_the_run_is_its_samples_shared_by_the_workers(
    method: dict[str, Any],
) -> None:
    run = experiment(method)
    assembly = assembly_of_shapes(run)
    nets, _ = frozen_of_shapes(assembly, dict.fromkeys(run.parents.frozen.values(), run))
    found = step_time(assemble(run), nets)
    assert found.device == "cpu"
    assert found.rows == run.training.batch_size
    assert found.seconds_per_sample > 0.0
    assert found.hours == pytest.approx(found.seconds_per_sample * run.training.samples / 3600.0)
    assert isinstance(run.training, Training)


@pytest.mark.parametrize(
    "method", [SHORTCUT, SHORTCUT | {"tiling": {"_target_": f"{TILING}.ListedTiles"}}], ids=str
)
def test_jumps_that_are_cut_are_counted(method: dict[str, Any]) -> None:
    assert counted(experiment(method)).flops > counted(experiment(FLOW_MATCHING)).flops


def test_a_derivative_that_is_left_open_is_counted_as_the_exact_one() -> None:
    auto = {"derivative": {"_target_": "onestep.methods.core.calculus.FastestDerivative"}}
    shown = cost_of(experiment(MEAN_FLOW | auto), {}, is_measured=False)
    assert shown["compute"]["flops_per_sample"] == counted(experiment(MEAN_FLOW)).flops


@pytest.mark.parametrize("method", ["progressive_distillation", "truncated_consistency"])
def test_a_teacher_that_is_not_registered_knows_the_jumps_that_are_asked(
    method: str, local_registry: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local_registry()
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    node = {"_target_": f"onestep.methods.{method}.{CLASSES[method]}"}
    values = recipe(node, steps=8, parents={"teacher": "points/1"})
    shown = cost_of(Experiment.from_dict(values), {}, is_measured=False)
    assert shown["memory"]["sizes_assumed"] == ["teacher"]
    assert shown["compute"]["flops_per_sample"] > 0


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_passes_that_make_pairs_are_counted(guidance: float) -> None:
    pairs = {"count": 48, "steps": 3, "guidance": guidance}
    values = recipe(REFLOW, steps=8, parents={"teacher": "teacher"}, pairs=pairs)
    teacher = experiment(FLOW_MATCHING)
    shown = cost_of(Experiment.from_dict(values), {"teacher": teacher}, is_measured=False)
    evaluations = 3 * 2 * (1 if guidance == 1.0 else 2)
    found = shown["compute"]["pairs"]
    assert found["flops_per_pair"] == evaluations * products(teacher)
    assert found["flops_of_generated"] == 48 * found["flops_per_pair"]


def _small(method: str, *more: str) -> Experiment:
    """Digits for a network of some thousand weights."""
    net = ["net=mlp_digits", "net.width=16", "net.depth=1", "net.embedding_width=8"]
    return Experiment.from_dict(compose("train", [f"method={method}", *net, *more]))


@pytest.mark.parametrize("method", CATALOGUE)
def test_every_method_is_counted_on_images(method: str) -> None:
    needs = build(compose("train", [f"method={method}"])["method"], AbstractLearner).needs
    parents = [f"parents.{role}={role}" for role in needs.frozen]
    if needs.pairs is not None:
        parents += ["parents.pairs=nowhere"]
    stages = dict.fromkeys(
        needs.frozen, _small("mean_flow" if method in CLASSES else "flow_matching")
    )
    shown = cost_of(_small(method, *parents), stages, is_measured=False)
    assert shown["compute"]["flops_per_sample"] > 0
