"""Losses: how the training loss of each trial went, kept beside it, whatever ends the trial."""

import json
from pathlib import Path
from typing import Final

_FILE: Final = "losses.jsonl"
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
