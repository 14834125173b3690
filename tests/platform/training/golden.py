"""Golden losses: what each method's first steps gave when they were last recorded on purpose."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from onestep.tests.platform.training.catalogue import CATALOGUE
from onestep.tests.platform.training.recipe import (
    BATCH,
    DIGITS,
    FLOW_MATCHING,
    MEAN_FLOW,
    POINTS,
    REFLOW,
    SHORTCUT,
    recipe,
    store_pairs,
)

STEPS: Final = 20
FOLDER: Final = Path(__file__).parents[2] / "golden"
METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "flow_matching": FLOW_MATCHING,
    "mean_flow": MEAN_FLOW,
    "shortcut": SHORTCUT,
    "reflow": REFLOW,
}
"""Recorded over ``STEPS`` steps of the whole training loop."""
SHORT: Final = tuple(name for name in CATALOGUE if name not in METHODS)
"""Recorded over the few steps of ``catalogue.py``."""


def experiment(name: str, folder: Path, **training: Any) -> dict[str, Any]:
    """The recorded experiment of a method.

    Args:
        name: The method, as in ``METHODS``.
        folder: Where a set of pairs may be written.
        training: Settings that must not change the losses.
    """
    parents: dict[str, str] = {}
    if name == "reflow":
        store_pairs(folder / "pairs")
        parents = {"pairs": str(folder / "pairs")}
    return recipe(
        METHODS[name],
        steps=STEPS,
        data=POINTS if name == "reflow" else DIGITS,
        training={"checkpoint_every": 7 * BATCH, "keep_checkpoints": 9} | training,
        parents=parents,
    )


def losses(rows: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """The loss of each step, from the rows of a reporter."""
    return {int(row["step"]): row["loss/online"] for row in rows if "loss/online" in row}


def read(name: str) -> dict[int, float]:
    """The recorded loss of each step."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    return {int(step): float(loss) for step, loss in (line.split() for line in lines)}


def write(name: str, found: Mapping[int, float]) -> None:
    """Record the loss of each step."""
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{step} {loss!r}\n" for step, loss in sorted(found.items())]
    (FOLDER / f"{name}.txt").write_text("".join(lines))
