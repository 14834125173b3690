"""The room that a run needs is counted as it is written, and a disk without it is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from onestep.platform.cli import USER_ERROR, main
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.room import bytes_of_run, check_room
from onestep.tests.platform.training.group import train_here
from onestep.tests.platform.training.recipe import (
    BATCH,
    FLOW_MATCHING,
    GAME,
    KEPT_NOISE,
    SHORTCUT,
    recipe,
)

WIDE = {"_target_": "onestep.methods.nets.mlp.MLP", "width": 128, "depth": 2}
ROWS = 128
STEPS = 6


def experiment(method: dict[str, Any] = FLOW_MATCHING, **training: Any) -> dict[str, Any]:
    values = recipe(method, steps=STEPS, training={"precision": "float32", **training})
    return values | {"net": WIDE}


def counted(values: dict[str, Any]) -> int:
    return bytes_of_run(assemble(Experiment.from_dict(values)), num_data=ROWS)


def weights(values: dict[str, Any]) -> int:
    net = assemble(Experiment.from_dict(values)).net()
    return sum(parameter.numel() for parameter in net.state_dict().values()) * 4


@pytest.mark.parametrize(
    "method", [FLOW_MATCHING, SHORTCUT, GAME, {**FLOW_MATCHING, "coupling": KEPT_NOISE}], ids=str
)
def test_the_bytes_of_a_checkpoint_are_those_that_are_written(
    method: dict[str, Any], tmp_path: Path
) -> None:
    values = experiment(method)
    train_here(values, tmp_path)
    (state,) = tmp_path.rglob("state.pt")
    expected = counted(values) - weights(values)
    # The file has names and structure, too.
    assert 0.9 * state.stat().st_size < expected <= state.stat().st_size


def test_checkpoints_count_as_often_as_they_lie_on_disk_at_once() -> None:
    given = experiment()
    once = counted(given) - weights(given)
    for kept, every, times in ((2, 0, 1), (2, BATCH, 3), (20, BATCH, STEPS), (20, 4 * BATCH, 2)):
        values = experiment(keep_checkpoints=kept, checkpoint_every=every)
        assert counted(values) == times * once + weights(values)


def test_an_optimizer_that_asks_for_values_is_left_out() -> None:
    node = {"_target_": "torch.optim.ASGD", "_partial_": True}
    plain = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
    assert counted(experiment() | {"optimizer": node}) == counted(
        experiment() | {"optimizer": plain}
    )


def test_what_lies_there_already_is_not_asked_for_again(tmp_path: Path) -> None:
    free, once = shutil.disk_usage(tmp_path).free, counted(experiment())
    kept = 2 * free // once
    values = experiment(keep_checkpoints=kept, checkpoint_every=BATCH, samples=2 * kept * BATCH)
    assembly = assemble(Experiment.from_dict(values))
    with pytest.raises(ValueError, match="run it needs at least"):
        check_room(assembly, tmp_path / "it", num_data=ROWS)
    lies = tmp_path / "it" / "checkpoints" / "step-0000000001"
    lies.mkdir(parents=True)
    with (lies / "state.pt").open("wb") as file:
        file.truncate(counted(values) - free // 2)  # a hole, which takes no room
    check_room(assembly, tmp_path / "it", num_data=ROWS)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No disk holds all of a thousand million checkpoints."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("ONESTEP_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = (
        "data=eight_gaussians",
        "data.samples=128",
        "data.held_out=64",
        "net=mlp",
        "training.batch_size=32",
        "training.samples=64000000000",
        "training.checkpoint_every=32",
        "training.keep_checkpoints=1000000000",
        "evaluation.samples=64",
        "evaluation.nfes=[1]",
    )
    assert main(["train", "run=mine", *settings]) == USER_ERROR
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert said.startswith("onestep train: run mine needs at least ")
    assert f" MiB free in {home}: lower training.keep_checkpoints, or set ONESTEP_HOME" in said
    assert not (home / "runs").exists()
