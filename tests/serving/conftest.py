import shutil
import warnings
from pathlib import Path

import pytest

from onestep.tests.serving.registry import fill_registry

# Ray declares the fields of its schemas in a way that pydantic gives up, and says so when imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray.serve  # noqa: F401


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    """A registry with two models of digits."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return fill_registry(tmp_path)
