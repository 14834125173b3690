"""The order of the tests: what waits for Ray begins first, so that nothing else waits for it."""

from typing import Final

import pytest

_FIRST: Final = ("test_ray_train.py", "test_host.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files that wait forward; all else keeps its order."""
    items.sort(key=lambda item: item.path.name not in _FIRST)
