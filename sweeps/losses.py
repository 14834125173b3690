"""Losses: how the training loss of each trial went, kept beside it, whatever ends the trial."""

import json
import os
from pathlib import Path
from typing import Final

_FILE: Final = "losses.jsonl"
_TAIL: Final = 256
"""Bytes that hold two readings."""
Loss = tuple[int, float]
"""Samples seen, and the mean loss since the reading before."""


def add_loss(folder: Path, samples: int, loss: float) -> None:
    """Write down a reading.

    Args:
        folder: Folder of the trial.
        samples: Samples seen.
        loss: The loss.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A line begins with its break, so that one which a kill cut off spoils no other.
    with (folder / _FILE).open("a") as stream:
        stream.write("\n" + json.dumps([samples, loss]))


def last_loss(folder: Path) -> Loss | None:
    """The last reading of a trial, whatever it had read before it was cut off.

    Args:
        folder: Folder of the trial.

    Returns:
        The reading; None if there is none yet.
    """
    try:
        with (folder / _FILE).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            lines = stream.read().splitlines()
    except OSError:  # there is none yet, or the store that is shared is away for a moment
        return None
    for line in reversed(lines):
        try:
            samples, loss = json.loads(line)
        except (ValueError, TypeError):  # cut off, or being written
            continue
        return int(samples), float(loss)
    return None


def losses_of(folder: Path) -> list[Loss]:
    """The readings of a trial, by samples.

    A trial that goes on from a checkpoint reads again what it had read after it: the later reading
    counts.

    Args:
        folder: Folder of the trial.

    Returns:
        The readings; none if there is no file.
    """
    try:
        lines = (folder / _FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    found: list[Loss] = []
    for line in filter(None, lines):
        try:
            samples, loss = json.loads(line)
        except ValueError:  # cut off
            continue
        while found and found[-1][0] >= samples:
            found.pop()
        found.append((int(samples), float(loss)))
    return found
