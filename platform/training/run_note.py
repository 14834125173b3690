"""Run notes: what the folder of a run says of it, so that the same command goes on with it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self, final

from ..atomic import write_json
from ..data.source import Dataset
from ..registry.store import Registry

_FILE: Final = "run.json"


@final
@dataclass(frozen=True, kw_only=True)
class RunNote:
    """What the folder of a run that has begun says of it.

    Attributes:
        run_id: MLflow run.
        data_digest: SHA-256 of the data that it was begun on; older versions did not note it.
        model: Reference of the model that it has registered, or None before its end.
    """

    run_id: str
    data_digest: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """The note in a folder, or None where no run has begun."""
        note = folder / _FILE
        return cls(**json.loads(note.read_text())) if note.exists() else None

    def keep(self, folder: Path) -> None:
        """Write the note into the folder of the run."""
        write_json(folder / _FILE, asdict(self))

    def registered(self, registry: Registry) -> str | None:
        """The model that the run has registered, or None where it has not ended.

        Args:
            registry: Where it registers; asked for a run that was cut off before it could note
                its model.
        """
        made = self.model or registry.made_by(self.run_id)
        return str(made) if made else None

    def check_data(self, dataset: Dataset, *, run: str) -> None:
        """Refuse other data than the run was begun on; checkpoints of streams do not tell them.

        Args:
            dataset: What it would go on with.
            run: Name of the run.

        Raises:
            ValueError: If they are others.
        """
        if self.data_digest is not None and self.data_digest != dataset.digest:
            raise ValueError(
                f"run {run} was begun on other data: their digest is {self.data_digest[:12]}..., "
                f"that of {dataset.name} is now {dataset.digest[:12]}...; choose another name by "
                "run=..."
            )


def model_of(folder: Path) -> str:
    """The model that a run has registered.

    Args:
        folder: Folder of the run.

    Returns:
        Its reference.

    Raises:
        ValueError: If there is no such run, or it has not ended.
    """
    note = RunNote.of(folder)
    if note is None or note.model is None:
        have = sorted(path.parent.name for path in folder.parent.glob(f"*/{_FILE}"))
        raise ValueError(
            f"run {folder.name} must have registered a model, got none; runs here: "
            f"{', '.join(have) or 'none'}"
        )
    return note.model
