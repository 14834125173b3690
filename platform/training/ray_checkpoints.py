"""The checkpoints that Ray Train keeps in the folder of a run, found also where it was killed."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import ray.train

from . import checkpoint as checkpoints
from .errors import CheckpointAltered
from .worker import CHECKPOINTS

_LOGGER: Final = logging.getLogger(__name__)
STORAGE: Final = "ray"
"""Folder in that of a run where Ray Train keeps its checkpoints."""
_NOTE: Final = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the checkpoints that it has kept whole."""
_SET_ASIDE: Final = f"{STORAGE}.unreadable"
_REMOVED: Final = f".{STORAGE}.removed"


def latest(folder: Path) -> Path | None:
    """The checkpoint of a run with the most steps, of one process or of Ray's workers.

    The trajectory does not depend on the number of workers, so each goes on from the other's. Where
    Ray Train was killed while it wrote its list of checkpoints, the last whole one becomes one of
    the run's own, and Ray Train's folder is set aside.

    Args:
        folder: Folder of the run, which no other process works on.

    Returns:
        The checkpoint, or None.

    Raises:
        CheckpointAltered: If the storage does not give what Ray Train has noted.
    """
    place = folder / STORAGE / folder.name
    found = checkpoints.latest(folder / CHECKPOINTS)
    if not (place / _NOTE).exists():
        return found
    try:
        # Not the folders themselves, of which a killed upload may have left a part.
        kept = path_of(ray.train.Result.from_path(str(place)).checkpoint)
    except OSError as error:
        raise CheckpointAltered(f"checkpoints in {place} cannot be read: {error}") from error
    except Exception as error:  # Ray's class for it is private
        return _recovered(folder, str(error))
    return furthest([found, kept])


def remove(folder: Path) -> None:
    """Delete what Ray Train keeps of a run, which nobody finds any more from the first moment on.

    Args:
        folder: Folder of the run, which has a checkpoint of its own that is as far.
    """
    if (folder / STORAGE).exists():
        _move(folder / STORAGE, folder / _REMOVED)
    for left in (_REMOVED, _SET_ASIDE):
        shutil.rmtree(folder / left, ignore_errors=True)


def path_of(checkpoint: ray.train.Checkpoint | None) -> Path | None:
    """Where a checkpoint lies that Ray Train has."""
    return None if checkpoint is None else Path(checkpoint.path)


def furthest(found: Iterable[Path | None]) -> Path | None:
    """The checkpoint with the most steps; its name tells them, whoever wrote it."""
    return max((one for one in found if one is not None), key=lambda one: one.name, default=None)


def _recovered(folder: Path, why: str) -> Path | None:
    own = folder / CHECKPOINTS
    whole = checkpoints.latest_whole(folder / STORAGE / folder.name)
    if whole is not None:
        checkpoints.adopt(own, whole)
    _move(folder / STORAGE, folder / _SET_ASIDE)
    found = checkpoints.latest(own)
    _LOGGER.warning(
        "Ray Train's list of checkpoints of %s cannot be read and is set aside in %s: the run goes "
        "on from %s: %s",
        folder,
        _SET_ASIDE,
        "its beginning" if found is None else found.name,
        next(iter(why.splitlines()), "it is empty"),
    )
    return found


def _move(place: Path, other: Path) -> None:
    """Move a folder in one step to the place of one that an earlier process may have left."""
    shutil.rmtree(other, ignore_errors=True)
    place.replace(other)
