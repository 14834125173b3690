"""Where the platform keeps what it remembers: a folder, and an MLflow store in it or elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

DEFAULT_FOLDER: Final = ".onestep"


@final
@dataclass(frozen=True, kw_only=True)
class Home:
    """The folder of the platform and the store of its runs and models.

    Attributes:
        root: Folder of everything local.
        tracking_uri: MLflow store of runs and models.
        artifacts: Where new artifacts go, a folder or a URI; an MLflow server decides by itself.
    """

    root: Path
    tracking_uri: str
    artifacts: str

    @classmethod
    def resolve(
        cls,
        environment: Mapping[str, str],
        *,
        folder: Path,
        tracking_uri: str | None = None,
    ) -> Self:
        """The home that an environment and a configuration name together.

        Args:
            environment: Read for ONESTEP_HOME, MLFLOW_TRACKING_URI and ONESTEP_ARTIFACTS.
            folder: Folder in which the home lies unless the environment names one.
            tracking_uri: Configured store; it goes before the environment's.

        Returns:
            The home; nothing is made on disk yet.
        """
        named = environment.get("ONESTEP_HOME")
        root = (Path(named).expanduser() if named else folder / DEFAULT_FOLDER).absolute()
        return cls(
            root=root,
            tracking_uri=tracking_uri
            or environment.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{root / 'mlflow.db'}",
            artifacts=environment.get("ONESTEP_ARTIFACTS") or str(root / "artifacts"),
        )

    @classmethod
    def here(cls, *, tracking_uri: str | None = None) -> Self:
        """The home of this process: its environment and its working folder."""
        return cls.resolve(os.environ, folder=Path.cwd(), tracking_uri=tracking_uri)

    @property
    def wandb(self) -> Path:
        """Folder of Weights & Biases runs."""
        return self.root / "wandb"
