"""What a run holds, counted from its recipe, against the tensors of the run itself."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onestep.methods.core.flow_map import FlowMap
from onestep.platform.build import build
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.feed import DataFeed
from onestep.platform.training.footprint import (
    assembly_of_shapes,
    frozen_of_shapes,
    held,
    learning_of_shapes,
)
from onestep.platform.training.learning import Learning
from onestep.platform.training.place import Place
from onestep.tests.platform.training.recipe import (
    BATCH,
    FLOW_MATCHING,
    GAME,
    MEAN_FLOW,
    SHORTCUT,
    TAUGHT_GAME,
    recipe,
)

SNAPSHOTS = {"ema_snapshots": 2, "ema_half_lives": [300.0]}
LEARNED = {
    "_target_": "onestep.methods.self_distillation.SelfDistillation",
    "learned": {"_target_": "onestep.methods.core.learned_weighting.LearnedWeighting"},
}
RADAM = {"_target_": "torch.optim.RAdam", "_partial_": True, "lr": 1e-3}
MUON = {"_target_": "onestep.platform.training.muon.MuonWithAdamW", "_partial_": True, "lr": 1e-3}


def experiment(method: dict[str, Any], **changes: Any) -> Experiment:
    values = recipe(method, steps=8, **changes)
    if method is TAUGHT_GAME:
        values["parents"] = {"teacher": "points/1"}
    return Experiment.from_dict(values)


def frozen(run: Experiment) -> dict[str, FlowMap]:
    """Networks like the one that is trained, for the roles of the method."""
    assembly = assemble(run)
    return {role: assembly.net() for role in assembly.learner.needs.frozen}


def trained(run: Experiment, *, steps: int = 4) -> Learning:
    """A run after some steps, in memory."""
    assembly = assemble(run)
    learning = Learning(
        assembly.learner,
        assembly.net(),
        frozen(run),
        optimizer=build(run.optimizer, object),  # type: ignore[arg-type]
        learning_rate=assembly.learning_rate,
        feed=DataFeed(assembly.source.load(), seed=0, batch_size=BATCH),
        training=run.training,
        seed=0,
        place=Place(),
    )
    for _ in range(steps):
        learning.advance()
    return learning


def counted(run: Experiment) -> dict[str, int]:
    """The same from shapes alone."""
    assembly = assembly_of_shapes(run)
    nets, _ = frozen_of_shapes(assembly, dict.fromkeys(run.parents.frozen.values(), run))
    learning = learning_of_shapes(assembly, nets)
    assert all(p.is_meta for p in learning.nets.online.parameters())
    return held(learning)


def tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors(inner)


def size(found: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in found)


def tables(net: nn.Module) -> list[Tensor]:
    """What a network does not save."""
    saved = set(net.state_dict())
    return [buffer for name, buffer in net.named_buffers() if name not in saved]


CASES = {
    "two averages": experiment(FLOW_MATCHING),
    "forward mode": experiment(MEAN_FLOW),
    "a target": experiment(SHORTCUT),
    "snapshots": experiment(FLOW_MATCHING, training=SNAPSHOTS),
    "a learned weight": experiment(LEARNED),
    "single precision": experiment(FLOW_MATCHING, training={"precision": "float32"}),
    "a game": experiment(GAME),
    "a game with a teacher": experiment(TAUGHT_GAME),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_counted_is_what_a_run_holds(case: str) -> None:
    learning, parts = trained(CASES[case]), counted(CASES[case])
    assert parts == held(learning)
    kept = learning.state()
    kept.pop("coupling")
    # The checkpoint holds all but gradients, frozen networks and tables that a network makes anew.
    nets = [learning.nets.online, *learning.averages.nets, *learning.nets.companions.values()]
    nets += [] if learning.nets.target is None else [learning.nets.target]
    nets += [] if learning.power_averages is None else learning.power_averages.nets
    expected = size(tensors(kept)) + sum(size(tables(net)) for net in nets)
    assert sum(parts.values()) - parts["gradients"] - parts["frozen"] == expected
    of_roles = frozen(CASES[case]).values()
    assert parts["frozen"] == sum(size(net.parameters()) + size(tables(net)) for net in of_roles)


@pytest.mark.parametrize("optimizer", [RADAM, MUON], ids=["radam", "muon"])
def test_what_other_optimizers_keep_is_counted(optimizer: dict[str, Any]) -> None:
    values = recipe(FLOW_MATCHING, steps=8) | {"optimizer": optimizer}
    run = Experiment.from_dict(values)
    assert counted(run) == held(trained(run))


def test_adam_keeps_two_numbers_for_each_weight_and_a_count_for_each_tensor() -> None:
    parts = counted(CASES["two averages"])
    weights = list(assemble(CASES["two averages"]).net().parameters())
    assert parts["gradients"] == size(weights)
    assert parts["averages"] == 2 * parts["weights"]
    assert parts["optimizer"] == 2 * size(weights) + 4 * len(weights)


def test_a_fused_optimizer_keeps_what_the_plain_one_keeps() -> None:
    fused = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "fused": True}
    run = Experiment.from_dict(recipe(FLOW_MATCHING, steps=8) | {"optimizer": fused})
    assert counted(run) == held(trained(run))


def test_a_teacher_that_is_not_registered_is_assumed_as_large_as_the_student(
    local_registry, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    local_registry()
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assembly = assembly_of_shapes(CASES["a game with a teacher"])
    nets, assumed = frozen_of_shapes(assembly, {})
    assert assumed == ("teacher",)
    with torch.device("meta"):
        expected = [p.shape for p in assembly.net().parameters()]
    assert [p.shape for p in nets["teacher"].parameters()] == expected
