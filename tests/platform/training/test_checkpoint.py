import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onestep.platform.training.checkpoint import Checkpoint, adopt, latest, load, prune, save
from onestep.platform.training.errors import CheckpointAltered, CheckpointMismatch
from onestep.tests.platform.training.killed import killed_after


def content(step: int = 7, *, size: int = 100) -> Checkpoint:
    state = {"weights": torch.arange(float(size)), "parts": [{"lr": 0.5}], "coupling": {}}
    return Checkpoint(step=step, recipe="recipe", state=state)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    place = save(tmp_path, content())
    back = load(place, recipe="recipe")
    assert back.step == 7
    assert torch.equal(back.state["weights"], torch.arange(100.0))
    assert back.state["parts"] == [{"lr": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000007"]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    place = save(tmp_path, content())
    with pytest.raises(
        CheckpointMismatch, match=r"its recipe is recipe\.\.\., this run's is other"
    ):
        load(place, recipe="other")


@pytest.mark.parametrize("cut", [0, 1, 500])
def test_a_truncated_checkpoint_is_refused(cut: int, tmp_path: Path) -> None:
    place = save(tmp_path, content())
    (place / "state.pt").write_bytes((place / "state.pt").read_bytes()[:cut])
    with pytest.raises(CheckpointAltered, match="is truncated or altered: its sha256 is"):
        load(place, recipe="recipe")


def test_one_altered_bit_is_refused(tmp_path: Path) -> None:
    place = save(tmp_path, content())
    payload = bytearray((place / "state.pt").read_bytes())
    payload[len(payload) // 2] ^= 1
    (place / "state.pt").write_bytes(payload)
    with pytest.raises(CheckpointAltered, match="is truncated or altered"):
        load(place, recipe="recipe")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"sha256": null}'])
def test_a_damaged_manifest_is_refused(text: str, tmp_path: Path) -> None:
    place = save(tmp_path, content())
    (place / "manifest.json").write_text(text)
    with pytest.raises(CheckpointAltered):
        load(place, recipe="recipe")


def test_the_step_of_a_manifest_is_not_believed(tmp_path: Path) -> None:
    place = save(tmp_path, content())
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"step": 1}))
    assert load(place, recipe="recipe").step == 7


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    place = save(tmp_path, content())
    (place / name).unlink()
    with pytest.raises(CheckpointAltered, match="cannot be read"):
        load(place, recipe="recipe")


def test_the_latest_has_the_most_steps_and_the_oldest_go_first(tmp_path: Path) -> None:
    assert latest(tmp_path / "checkpoints") is None
    for step in (9, 10, 100, 2):
        save(tmp_path, content(step))
    found = latest(tmp_path)
    assert found is not None
    assert found.name == "step-0000000100"
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-0000000010",
        "step-0000000100",
    ]


def test_what_a_killed_writer_left_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    (tmp_path / ".step-0000000009.123").mkdir()
    save(tmp_path, content(3))
    found = latest(tmp_path)
    assert found is not None
    assert found.name == "step-0000000003"
    prune(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000003"]


def test_a_checkpoint_that_is_adopted_is_a_whole_copy(tmp_path: Path) -> None:
    place, own = save(tmp_path / "theirs", content()), tmp_path / "own"
    copy = adopt(own, place)
    (place / "state.pt").write_bytes(b"altered since")
    assert torch.equal(load(copy, recipe="recipe").state["weights"], torch.arange(100.0))
    assert latest(own) == copy
    assert adopt(own, place) == adopt(own, copy) == copy  # what is there already stays as it is
    load(copy, recipe="recipe")
    assert [path.name for path in own.iterdir()] == [copy.name]


def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, content(1))
    # A limit on the size of files stops the write half way, as a full disk does.
    program = f"""
import resource, torch
from pathlib import Path
from onestep.platform.training.checkpoint import Checkpoint, save
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
state = {{"weights": torch.zeros(100_000)}}
try:
    save(Path({str(tmp_path)!r}), Checkpoint(step=2, recipe="recipe", state=state))
except OSError as error:
    print(type(error).__name__, error.errno is not None)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["OSError", "True"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]
    assert load(tmp_path / "step-0000000001", recipe="recipe").step == 1


def test_a_step_that_is_saved_again_is_there_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    save(tmp_path, content(size=10))
    for moves in range(10):
        was_killed = killed_after(moves, lambda: save(tmp_path, content()))
        found = latest(tmp_path)
        assert found is not None
        assert load(found, recipe="recipe").step == 7
        if not was_killed:
            break
    assert moves > 4, "files and folders were moved and removed"
    assert load(found, recipe="recipe").state["weights"].numel() == 100
    prune(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000007"]


def test_a_checkpoint_is_forced_to_disk_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[tuple[str, list[str]]] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        forced.append((place, sorted(path.name for path in tmp_path.glob("step-*"))))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    place = save(tmp_path, content())
    assert forced[-1] == (str(tmp_path), [place.name])
