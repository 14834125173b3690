"""What all tests share: their order, and an empty database."""

from pathlib import Path
from typing import Final

import pytest

_FIRST: Final = (
    "test_ray_train.py",
    "test_host.py",
    "test_search.py",
    "test_launch.py",
    "test_sequence.py",
    "test_docs.py",
    "test_benchmarks.py",
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
