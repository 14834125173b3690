"""Where the platform keeps what it remembers: a folder, and an MLflow store in it or elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

DEFAULT_FOLDER: Final = ".onestep"
_SQLITE: Final = "sqlite:///"
_OWN: Final = "file:"
VARIABLES: Final = (
    "ONESTEP_HOME",
    "ONESTEP_ARTIFACTS",
    "ONESTEP_DATA",
    "ONESTEP_TRUST",
    "MLFLOW_TRACKING_URI",
)
"""What says where the home, its stores and the data are, and which classes records may name."""


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
            tracking_uri: Configured store, if any; it goes before the environment's.

        Returns:
            The home; nothing is made on disk yet.
        """
        named = environment.get("ONESTEP_HOME")
        root = (Path(named).expanduser() if named else folder / DEFAULT_FOLDER).absolute()
        store = tracking_uri or environment.get("MLFLOW_TRACKING_URI")
        artifacts = environment.get("ONESTEP_ARTIFACTS") or str(root / "artifacts")
        if "://" not in artifacts:
            artifacts = str((folder / Path(artifacts).expanduser()).absolute())
        return cls(
            root=root,
            tracking_uri=_absolute(store or f"sqlite:///{root / 'mlflow.db'}", folder),
            artifacts=artifacts,
        )

    @classmethod
    def here(cls, *, tracking_uri: str | None = None) -> Self:
        """The home of this process: its environment and its working folder."""
        return cls.resolve(os.environ, folder=Path.cwd(), tracking_uri=tracking_uri)

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What a process started elsewhere needs in its environment to find the same.

        Args:
            environment: That of this process, read for the variables that are no part of a home.

        Returns:
            Values of ``VARIABLES``; those of folders do not depend on the working folder.
        """
        found = {name: environment[name] for name in VARIABLES if environment.get(name)}
        if "ONESTEP_DATA" in found:
            found["ONESTEP_DATA"] = str(Path(found["ONESTEP_DATA"]).expanduser().absolute())
        return found | {
            "ONESTEP_HOME": str(self.root),
            "ONESTEP_ARTIFACTS": self.artifacts,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
        }

    @property
    def runs(self) -> Path:
        """Folder of the folders of runs."""
        return self.root / "runs"

    @property
    def wandb(self) -> Path:
        """Folder of Weights & Biases runs."""
        return self.root / "wandb"


def _absolute(uri: str, folder: Path) -> str:
    """A store's URI that means the same in other working folders: Ray's workers have their own."""
    name = uri.removeprefix(_SQLITE)
    if name == uri or name.startswith(("/", f"{_OWN}/")):
        return uri
    own = _OWN if name.startswith(_OWN) else ""  # a URI of SQLite's own, within that of the store
    return f"{_SQLITE}{own}{(folder / name.removeprefix(own)).absolute()}"
