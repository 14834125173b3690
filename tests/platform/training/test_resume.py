"""A run that is killed and resumed in a new process ends with the same bits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from onestep.methods.core.global_ot import GlobalOTCoupling
from onestep.methods.core.record import Batch
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.data.source import AbstractSource
from onestep.platform.training import checkpoint
from onestep.platform.training.errors import CheckpointMismatch
from onestep.tests.platform.training.group import (
    Died,
    assert_equal,
    leaves,
    run_group,
    state_at,
    train,
    train_here,
)
from onestep.tests.platform.training.recipe import (
    BATCH,
    FLOW_MATCHING,
    GAME,
    KEPT_NOISE,
    MEAN_FLOW,
    POINTS,
    REFLOW,
    SHORTCUT,
    recipe,
    store_pairs,
)

STEPS: Final = 9
KEPT: Final = {"checkpoint_every": 3 * BATCH, "keep_checkpoints": 1}


def killed_and_resumed(experiment: Mapping[str, Any], folder: Path, world: int) -> dict[str, Any]:
    """The last state of a run that dies at step 5, after the checkpoint at step 3."""
    with pytest.raises(Died, match="-9"):
        run_group(train, world, experiment, folder, None, 5)
    left = checkpoint.latest(folder / "checkpoints")
    assert left is not None
    assert left.name == "step-0000000003"
    rows = run_group(train, world, experiment, folder, left)[0]
    assert [row["step"] for row in rows] == [4, 5, 6, 7, 8, 9]
    return last_state(folder)


def last_state(folder: Path) -> dict[str, Any]:
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    assert last.name == f"step-{STEPS:010d}"
    return state_at(last)


def test_one_worker_resumes_bitwise(tmp_path: Path) -> None:
    experiment = recipe(SHORTCUT, steps=STEPS, training={**KEPT, "ema_snapshots": 4})
    resumed = killed_and_resumed(experiment, tmp_path / "killed", world=1)
    whole, _ = train_here(experiment, tmp_path / "whole")
    assert_equal(resumed, whole)
    kinds = {name.split("/")[1] for name in leaves(whole)}
    assert kinds == {"online", "target", "averages", "power_averages", "optimizers"}
    kept, again = (sorted((tmp_path / run / "snapshots").iterdir()) for run in ("whole", "killed"))
    assert [file.name for file in kept] == [
        f"{step:09d}-{width}.safetensors" for step in (3, 5, 7, 9) for width in ("0.05", "0.10")
    ]
    for one, other in zip(kept, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_two_workers_resume_bitwise_with_a_coupling_that_remembers(tmp_path: Path) -> None:
    method = {**MEAN_FLOW, "coupling": KEPT_NOISE}
    experiment = recipe(method, steps=STEPS, training=KEPT)
    resumed = killed_and_resumed(experiment, tmp_path / "killed", world=2)
    run_group(train, 2, experiment, tmp_path / "whole")
    assert_equal(resumed, last_state(tmp_path / "whole"))
    assert "/coupling/noise" in leaves(resumed)


def test_two_workers_resume_a_game_bitwise(tmp_path: Path) -> None:
    """The judge moves at every second step, so it matters at which step the game goes on."""
    experiment = recipe(GAME, steps=STEPS, training=KEPT)
    resumed = killed_and_resumed(experiment, tmp_path / "killed", world=2)
    run_group(train, 2, experiment, tmp_path / "whole")
    assert_equal(resumed, last_state(tmp_path / "whole"))
    assert {"companions", "optimizers"} <= {name.split("/")[1] for name in leaves(resumed)}


def test_pairs_resume_bitwise(tmp_path: Path) -> None:
    store_pairs(tmp_path / "pairs")
    parents = {"pairs": str(tmp_path / "pairs")}
    training = {**KEPT, "keep_checkpoints": 9}
    experiment = recipe(REFLOW, steps=STEPS, training=training, parents=parents)
    whole, _ = train_here(experiment, tmp_path)
    resumed, _ = train_here(
        experiment, tmp_path / "again", tmp_path / "checkpoints" / "step-0000000006"
    )
    assert_equal(resumed, whole)


def test_an_assignment_is_solved_once_and_goes_on_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coupling = GlobalOTCoupling(block=50)
    node = compose("train", ["method=neural_flow", "coupling@method.coupling=global_ot"])["method"]
    node["coupling"]["block"] = coupling.block
    experiment = recipe(node, steps=STEPS, training={**KEPT, "keep_checkpoints": 9})
    whole, _ = train_here(experiment, tmp_path)
    x1 = build(POINTS, AbstractSource).load().train.x  # type: ignore[type-abstract]
    data = Batch(x1=x1, index=torch.arange(len(x1)))
    expected = coupling.solve(data, coupling.initial(len(x1), (2,)))
    assert torch.equal(whole["coupling"]["seed"], expected["seed"])
    monkeypatch.setattr(GlobalOTCoupling, "solve", None)
    resumed, _ = train_here(
        experiment, tmp_path / "again", tmp_path / "checkpoints" / "step-0000000006"
    )
    assert_equal(resumed, whole)


def test_what_a_coupling_remembers_matters(tmp_path: Path) -> None:
    """Without this, the state could be lost without a sign."""
    method = {**FLOW_MATCHING, "coupling": KEPT_NOISE}
    experiment = recipe(method, steps=STEPS, training={**KEPT, "keep_checkpoints": 9})
    whole, _ = train_here(experiment, tmp_path)
    place = tmp_path / "checkpoints" / "step-0000000006"
    forgetful = dict(state_at(place))
    forgetful["coupling"] = {"noise": 0.0 * forgetful["coupling"]["noise"]}
    digest = recipe_of(place)
    content = checkpoint.Checkpoint(step=6, recipe=digest, state=forgetful)
    start = checkpoint.save(tmp_path / "forgetful", content)
    resumed, _ = train_here(experiment, tmp_path / "again", start)
    with pytest.raises(AssertionError):
        assert_equal(resumed["online"], whole["online"])


def recipe_of(place: Path) -> str:
    """The digest that a checkpoint carries, as a mismatch tells its first letters."""
    return str(torch.load(place / "state.pt", weights_only=True)["recipe"])


@pytest.mark.parametrize(
    "changed",
    [
        {"net": {"_target_": "onestep.methods.nets.mlp.MLP", "width": 24, "depth": 1}},
        {"method": FLOW_MATCHING},
        {"seed": 4},
        {"training": {**recipe(MEAN_FLOW, steps=2)["training"], "ema_snapshots": 2}},
    ],
    ids=["net", "method", "seed", "snapshots"],
)
def test_a_checkpoint_of_another_run_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    experiment = recipe(MEAN_FLOW, steps=2)
    train_here(experiment, tmp_path)
    start = checkpoint.latest(tmp_path / "checkpoints")
    with pytest.raises(CheckpointMismatch, match="belongs to another network, method or data set"):
        train_here(experiment | changed, tmp_path / "again", start)
    assert not (tmp_path / "again").exists()


def test_a_run_that_is_done_trains_no_further(tmp_path: Path) -> None:
    experiment = recipe(FLOW_MATCHING, steps=2)
    train_here(experiment, tmp_path)
    start = checkpoint.latest(tmp_path / "checkpoints")
    _, reporter = train_here(experiment, tmp_path, start)
    assert reporter.rows == []
