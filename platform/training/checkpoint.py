"""Checkpoints: everything a run needs to go on, written whole or not at all, checked when read."""

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

from ..atomic import sha256, sync_folder, write_bytes, write_json
from .errors import CheckpointAltered, CheckpointMismatch

_STATE: Final = "state.pt"
_MANIFEST: Final = "manifest.json"
_PREFIX: Final = "step-"
_REPLACED: Final = ".replaced"


@final
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after a number of steps.

    Attributes:
        step: Steps taken.
        recipe: Digest of what the state fits: network, method, data.
        state: Tensors and plain values by name.
    """

    step: int
    recipe: str
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into a folder of its own.

    It is written beside its place and moved there when it is whole, so that a reader never sees
    a part of it and a full disk leaves nothing behind. An earlier checkpoint of the same step is
    found until then.

    Args:
        folder: Folder of all checkpoints of the run.
        checkpoint: What to write.

    Returns:
        The folder of this checkpoint.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final_place = folder / f"{_PREFIX}{checkpoint.step:010d}"
    draft = folder / f".{final_place.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        # Serialised in memory, because torch's own writer hides a full disk in another error.
        payload = io.BytesIO()
        content = {"step": checkpoint.step, "recipe": checkpoint.recipe}
        torch.save(content | {"state": dict(checkpoint.state)}, payload)
        digest = write_bytes(draft / _STATE, payload.getvalue())
        write_json(draft / _MANIFEST, {"step": checkpoint.step, "sha256": digest})
        if final_place.exists():
            # A folder cannot take the place of another, so that the earlier one steps aside.
            replaced = final_place.with_suffix(_REPLACED)
            shutil.rmtree(replaced, ignore_errors=True)
            final_place.replace(replaced)
        draft.replace(final_place)
        sync_folder(folder)
        shutil.rmtree(final_place.with_suffix(_REPLACED), ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final_place


def adopt(folder: Path, place: Path) -> Path:
    """Copy a checkpoint to those of a run, whole or not at all.

    Args:
        folder: Folder of all checkpoints of the run.
        place: Folder of the checkpoint, which may be one of them.

    Returns:
        The folder of the copy.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    final_place = folder / place.name
    if final_place.exists():
        return final_place
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{place.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(place, draft)
        draft.replace(final_place)
        sync_folder(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final_place


def load(place: Path, *, recipe: str) -> Checkpoint:
    """Read a checkpoint back.

    Args:
        place: Folder of the checkpoint.
        recipe: Digest of what the run expects.

    Returns:
        The checkpoint, its tensors on the CPU.

    Raises:
        CheckpointAltered: If a file is missing, truncated or altered.
        CheckpointMismatch: If it belongs to another network, method or data set.
    """
    expected = digest_of(place)
    try:
        payload = (place / _STATE).read_bytes()
    except OSError as error:
        raise CheckpointAltered(f"checkpoint {place} cannot be read: {error}") from error
    found = sha256(payload)
    if found != expected:
        raise CheckpointAltered(
            f"checkpoint {place} is truncated or altered: its sha256 is {found[:12]}..., "
            f"its manifest says {expected[:12]}..."
        )
    content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if content["recipe"] != recipe:
        raise CheckpointMismatch(
            f"checkpoint {place} belongs to another network, method or data set, or to other "
            "settings of training, which decide what is learned: choose those that it was begun "
            f"with, or another name by run=...; its recipe is {content['recipe'][:12]}..., this "
            f"run's is {recipe[:12]}..."
        )
    return Checkpoint(**content)


def digest_of(place: Path) -> str:
    """The SHA-256 that a checkpoint says of its state.

    Args:
        place: Folder of the checkpoint.

    Returns:
        The digest, which ``load`` holds against the state.

    Raises:
        CheckpointAltered: If it cannot be read.
    """
    try:
        return str(json.loads((place / _MANIFEST).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointAltered(f"checkpoint {place} cannot be read: {error}") from error


def latest(folder: Path) -> Path | None:
    """The checkpoint of a run with the most steps, or None."""
    found = _ordered(folder)
    return found[-1] if found else None


def latest_whole(folder: Path) -> Path | None:
    """The checkpoint with the most steps whose state is what its manifest says, or None."""
    return next((one for one in reversed(_ordered(folder)) if _is_whole(one)), None)


def step_of(place: Path) -> int:
    """Steps taken up to a checkpoint."""
    return int(place.stem.removeprefix(_PREFIX))


def prune(folder: Path, *, keep: int) -> None:
    """Delete all but the latest checkpoints of a run, and what killed writers left.

    Args:
        folder: Folder of all checkpoints of the run.
        keep: How many stay, at least 1.
    """
    drafts = folder.glob(f".{_PREFIX}*")  # of writers that were killed; there is only one writer
    for old in (*_ordered(folder)[:-keep], *drafts):
        shutil.rmtree(old)


def _ordered(folder: Path) -> list[Path]:
    """Checkpoints by their steps, one that is being replaced before the one in its place."""
    return sorted(folder.glob(f"{_PREFIX}*"), key=lambda place: (place.stem, not place.suffix))


def _is_whole(place: Path) -> bool:
    try:
        return sha256((place / _STATE).read_bytes()) == digest_of(place)
    except (OSError, CheckpointAltered):
        return False
