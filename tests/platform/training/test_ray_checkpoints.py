"""What Ray Train keeps of a run is found, or set aside where a kill has left a part of it."""

import json
import os
from pathlib import Path
from typing import Final

import pytest
import ray
import torch

from onestep.platform.training.checkpoint import Checkpoint, save
from onestep.platform.training.errors import CheckpointAltered
from onestep.platform.training.ray_checkpoints import latest, remove
from onestep.tests.platform.training.killed import killed_after

NOTE: Final = "checkpoint_manager_snapshot.json"


def keep(folder: Path, *steps: int) -> Path:
    """What Ray Train leaves of a run whose workers have reported checkpoints."""
    place = folder / "ray" / folder.name
    kept = []
    for step in steps:
        save(place, Checkpoint(step=step, recipe="recipe", state={"weights": torch.ones(3)}))
        name = f"step-{step:010d}"
        kept.append({"version": 0, "checkpoint_dir_name": name, "metrics": {"step": step}})
    note = {
        "ray_version": ray.__version__,
        "checkpoint_results": kept,
        "checkpoint_report_indices": list(range(len(kept))),
        "latest_checkpoint_result": kept[-1],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(kept),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    (place / NOTE).write_text(json.dumps(note))
    return place


def keep_own(folder: Path, step: int) -> Path:
    content = Checkpoint(step=step, recipe="recipe", state={"weights": torch.ones(3)})
    return save(folder / "checkpoints", content)


def test_the_furthest_checkpoint_is_found_whoever_wrote_it(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    own = keep_own(tmp_path, 3)
    assert latest(tmp_path) == own
    place = keep(tmp_path, 2, 4)
    assert latest(tmp_path) == place / "step-0000000004"
    assert keep_own(tmp_path, 5) == latest(tmp_path)


@pytest.mark.parametrize("left", ["", '{"ray_version": "2.60.0", "checkpo', "[]"])
def test_a_half_written_list_is_set_aside_and_the_last_whole_checkpoint_gone_on_from(
    left: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_own(tmp_path, 2)
    place = keep(tmp_path, 4, 6, 8)
    (place / NOTE).write_text(left)
    (place / "step-0000000006" / "state.pt").write_bytes(b"a part")
    (place / "step-0000000008" / "manifest.json").unlink()
    found = latest(tmp_path)
    assert found == tmp_path / "checkpoints" / "step-0000000004"
    assert (
        f"Ray Train's list of checkpoints of {tmp_path} cannot be read and is set aside in "
        "ray.unreadable: the run goes on from step-0000000004"
    ) in caplog.text
    assert not (tmp_path / "ray").exists()
    assert (tmp_path / "ray.unreadable" / tmp_path.name / NOTE).exists()
    caplog.clear()
    assert latest(tmp_path) == found
    assert not caplog.text


def test_a_run_without_a_whole_checkpoint_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = keep(tmp_path, 4)
    (place / NOTE).write_text("{")
    (place / "step-0000000004" / "state.pt").unlink()
    assert latest(tmp_path) is None
    assert "the run goes on from its beginning" in caplog.text


def test_a_second_list_that_is_half_written_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for step in (4, 6):
        (keep(tmp_path, step) / NOTE).write_text("{")
        assert latest(tmp_path) == tmp_path / "checkpoints" / f"step-{step:010d}"


def test_a_list_of_checkpoints_of_which_some_are_gone_is_set_aside(tmp_path: Path) -> None:
    place = keep(tmp_path, 4, 6)
    (place / "step-0000000004" / "state.pt").unlink()
    (place / "step-0000000004" / "manifest.json").unlink()
    (place / "step-0000000004").rmdir()
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-0000000006"
    assert not (tmp_path / "ray").exists()


def test_storage_that_does_not_answer_is_not_taken_for_a_half_written_list(tmp_path: Path) -> None:
    place = keep(tmp_path, 4)
    (place / NOTE).unlink()
    (place / NOTE).mkdir()
    with pytest.raises(CheckpointAltered, match=f"checkpoints in {place} cannot be read") as told:
        latest(tmp_path)
    assert isinstance(told.value.__cause__, OSError)
    assert place.exists()


def test_a_removal_that_is_killed_leaves_the_checkpoint_of_the_run(tmp_path: Path) -> None:
    """It is killed after each of the things that it moves and removes."""
    own = keep_own(tmp_path, 6)
    for changes in range(20):
        keep(tmp_path, 4, 6)
        was_killed = killed_after(changes, lambda: remove(tmp_path))
        assert latest(tmp_path) == own
        assert not (tmp_path / "ray.unreadable").exists()
        if not was_killed:
            break
    assert changes > 6
    assert os.listdir(tmp_path) == ["checkpoints"]
