import shutil
from pathlib import Path

import pytest

from onestep.sweeps.listing import listing
from onestep.sweeps.note import folder_of, names_of_sweeps
from onestep.tests.sweeps.test_page import begun, finish, start

OLDER = "toy-20200101-000000-aaaa"


@pytest.fixture
def home(tmp_path: Path, empty_study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    shutil.copy(empty_study, tmp_path / "optuna.db")
    return tmp_path


def test_sweeps_are_listed_with_how_far_they_are(home: Path) -> None:
    assert listing() == ["no sweep has been begun yet"]
    book = begun(home)
    start(book)
    head, line = listing()
    assert head.split() == ["sweep", "trials", "of", "ended", "best", "model"]
    assert "mean_flow eight_gaussians" in line
    assert "0 of 4" in line
    finish(book, [1.25], report="{}")
    assert "1 of 4" in listing()[1]
    assert "eval/w2 at 1 NFE 1.25" in listing()[1]


def test_a_sweep_whose_database_is_gone_is_listed_too(home: Path) -> None:
    begun(home)
    (name,) = names_of_sweeps()
    shutil.copytree(folder_of(name), folder_of(OLDER))
    first, second = listing()[1:]
    assert first.startswith(f"{OLDER}  cannot be read: Optuna's database at ")
    assert second.startswith(name)
