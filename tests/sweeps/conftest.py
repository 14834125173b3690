from pathlib import Path

import pytest

from onestep.sweeps.study import open_storage


@pytest.fixture(scope="session")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Optuna without a study, to be copied: its tables take seconds to make."""
    file = tmp_path_factory.mktemp("study") / "optuna.db"
    storage = open_storage(f"sqlite:///{file}")
    storage.engine.dispose()
    return file
