"""Books of a toy sweep; tests of several files import them."""

import shutil
from pathlib import Path
from typing import Any, Final

from optuna.storages import RDBStorage
from optuna.study import Study

from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Mode, Number, Objective, Objectives
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.study import begin, open_storage, storage_url

TOTAL: Final = 1000
COST_OF_ONE: Final = Cost(wall_s=60.0, training_s=50.0, gpu_s=30.0, samples=TOTAL)
QUALITY: Final = Objective(name="eval/w2", nfe=1, mode=Mode.MAX)
COST: Final = Objective(name="cost/training_s")
SETTINGS: Final = SweepSettings(
    name="toy",
    base=("method=mean_flow",),
    space=Space.from_dict(
        {
            "x": {"kind": "uniform", "low": 0.0, "high": 1.0},
            "k": {"kind": "choice", "values": ["a", "b", "c"]},
        }
    ),
    objectives=Objectives(by_label={"quality": QUALITY}),
    startup=3,
    population=5,
)


def new_storage(folder: Path, empty_study: Path) -> RDBStorage:
    """A database with the tables that take long to make."""
    folder.mkdir()
    shutil.copy(empty_study, folder / "optuna.db")
    return open_storage(storage_url(SETTINGS, folder))


def open_book(
    storage: RDBStorage,
    folder: Path,
    settings: SweepSettings = SETTINGS,
    *,
    revision: str = "unknown",
) -> Book:
    """The book as a process finds it that has just been started."""
    study = begin(storage, "toy-1", settings.objectives)
    budgets = settings.scheduler.budgets(TOTAL)
    base = settings.base
    return Book(study, settings, base=base, budgets=budgets, folder=folder, revision=revision)


def number(value: float) -> Number:
    return Number(value=value, low=value - 1, high=value + 1)


def finish(book: Book, which: int, *values: float) -> None:
    book.end(
        which, [number(value) for value in values], samples=TOTAL, report="{}", cost=COST_OF_ONE
    )


def suggested(book: Book) -> int:
    suggestion = book.suggest()
    assert suggestion is not None
    return suggestion.number


def params(study: Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials()]
