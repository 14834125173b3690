"""However many workers share a batch, and in however many parts, they walk one trajectory."""

from pathlib import Path
from typing import Any, Final

import pytest
import torch

from onestep.platform.training.errors import TrainingDiverged
from onestep.tests.platform.training.group import (
    distance,
    leaves,
    run_group,
    state_at,
    train_here,
    train_many,
)
from onestep.tests.platform.training.recipe import (
    BATCH,
    DIGITS,
    FLOW_MATCHING,
    GAME,
    MEAN_FLOW,
    OT,
    POINTS,
    SHORTCUT,
    recipe,
)

STEPS: Final = 200
QUIET: Final = {"log_every": STEPS * BATCH}
EXPERIMENTS: Final[dict[str, dict[str, Any]]] = {
    "mean_flow": recipe({**MEAN_FLOW, "coupling": OT}, steps=STEPS, training=QUIET),
    "shortcut": recipe({**SHORTCUT, "coupling": OT}, steps=STEPS, training=QUIET),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    return {name: train_here(each, folder / name)[0] for name, each in EXPERIMENTS.items()}


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_workers_walk_the_trajectory_of_one(
    world: int, alone: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run_group(train_many, world, EXPERIMENTS, tmp_path)
    for name, state in alone.items():
        together = state_at(tmp_path / name / "checkpoints" / f"step-{STEPS:010d}")
        assert distance(together, state) < 1e-10
        assert any(leaf.startswith("/target/") for leaf in leaves(state)) is (name == "shortcut")


@pytest.mark.parametrize("method", [MEAN_FLOW, GAME], ids=["mean_flow", "game"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_batch(parts: int, method: dict[str, Any], tmp_path: Path) -> None:
    whole = recipe(method, steps=10)
    cut = recipe(method, steps=10, training={"accumulate": parts})
    ours, theirs = train_here(whole, tmp_path / "whole")[0], train_here(cut, tmp_path / "cut")[0]
    assert distance(ours, theirs) < 1e-10


def test_other_shards_are_another_trajectory(tmp_path: Path) -> None:
    four, two = recipe(MEAN_FLOW, steps=3), recipe(MEAN_FLOW, steps=3, training={"shards": 2})
    ours, theirs = train_here(four, tmp_path / "four")[0], train_here(two, tmp_path / "two")[0]
    assert distance(ours, theirs) > 1e-3


def test_clipping_bounds_the_gradient_and_its_length_is_reported(tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    flat = {"_target_": "onestep.methods.core.schedule.Constant", "value": 1.0}
    steps: dict[float, float] = {}
    for norm in (0.0, 1e-3):
        experiment = recipe(FLOW_MATCHING, steps=1, training={"clip_norm": norm})
        experiment |= {"optimizer": sgd, "learning_rate": flat}
        before = train_here(
            experiment | {"optimizer": {**sgd, "lr": 0.0}}, tmp_path / f"{norm} still"
        )[0]
        after, reporter = train_here(experiment, tmp_path / str(norm))
        moved = {k: v - before["online"][k] for k, v in after["online"].items()}
        steps[norm] = float(sum(v.square().sum() for v in moved.values()) ** 0.5)
        assert ("gradient/online" in reporter.rows[0]) is (norm > 0)
        if norm:
            assert reporter.rows[0]["gradient/online"] == pytest.approx(steps[0.0], rel=1e-9)
    assert steps[0.0] > 0.1
    assert steps[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_half_precision_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    half = recipe(MEAN_FLOW, steps=5, training={"precision": "bfloat16"})
    single = recipe(MEAN_FLOW, steps=5, training={"precision": "float32"})
    ours, reporter = train_here(half, tmp_path / "half")
    theirs, _ = train_here(single, tmp_path / "single")
    for tensor in ours["online"].values():
        assert str(tensor.dtype) == "torch.float32"
        assert tensor.isfinite().all()
    assert all(row["loss/online"] < 1e3 for row in reporter.rows if "loss/online" in row)
    assert 1e-6 < distance(ours["online"], theirs["online"]) < 0.1


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_kept(tmp_path: Path) -> None:
    training = {"clip_norm": 0.0, "log_every": 1000 * BATCH, "checkpoint_every": 2 * BATCH}
    experiment = recipe(FLOW_MATCHING, steps=40, lr=1e80, training=training)
    with pytest.raises(TrainingDiverged, match=r"loss/online is (nan|inf) at step \d+; lower"):
        train_here(experiment, tmp_path)
    for kept in (tmp_path / "checkpoints").glob("step-*"):
        assert all(tensor.isfinite().all() for tensor in state_at(kept)["online"].values())


@pytest.mark.slow
def test_networks_that_were_compiled_before_do_not_count(tmp_path: Path) -> None:
    limits = {"recompile_limit": 1, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(limits):
        for data in (DIGITS, POINTS):
            values = recipe(FLOW_MATCHING, steps=2, data=data, training={"compile": True})
            train_here(values, tmp_path / data["_target_"])


@pytest.mark.slow
@pytest.mark.parametrize("method", [FLOW_MATCHING, MEAN_FLOW], ids=["flow_matching", "mean_flow"])
def test_a_compiled_network_walks_the_same_way(method: dict[str, Any], tmp_path: Path) -> None:
    plain, _ = train_here(recipe(method, steps=5), tmp_path / "plain")
    compiled, _ = train_here(
        recipe(method, steps=5, training={"compile": True}), tmp_path / "compiled"
    )
    assert distance(compiled, plain) < 1e-8
