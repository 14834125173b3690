from pathlib import Path

import pytest

from onestep.platform.home import Home


@pytest.fixture
def home(home_folder: Path) -> Home:
    """A home with a model store of its own, which the environment names."""
    del home_folder
    return Home.here()
