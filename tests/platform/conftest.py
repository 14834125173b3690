import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onestep.platform.registry.store import Registry


@pytest.fixture
def local_registry(empty_database: Path, tmp_path: Path) -> Callable[[], Registry]:
    """Opens the registry of a new home, the same one each time."""
    path = tmp_path / "home" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_database, path)
    return lambda: Registry(f"sqlite:///{path}")
