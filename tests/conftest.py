"""What all tests share: their order, and an empty database."""

import shutil
from pathlib import Path
from typing import Final

import pytest

_FIRST: Final = (
    "test_ray_train.py",
    "test_host.py",
    "test_search.py",
    "test_launch.py",
    "test_launch_parents.py",
    "test_sequence.py",
    "test_docs.py",
    "test_learned.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the long files forward, so that nothing waits for them at the end."""
    rank = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, made once: making them takes seconds."""
    from onestep.platform.registry.store import Registry  # so does importing MLflow

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    Registry(f"sqlite:///{path}")
    return path


@pytest.fixture
def home_folder(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model store of its own."""
    root = tmp_path / "home"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    (root / ".mlflow.db.lock").touch()  # stays beside the file once it has been opened
    for name in ("MLFLOW_TRACKING_URI", "ONESTEP_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONESTEP_HOME", str(root))
    return root
