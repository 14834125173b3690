"""Populations of a network of some hundred weights, trained without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from optuna.storages import RDBStorage
from optuna.study import Study

from onestep.platform.training import checkpoint as checkpoints
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import CHECKPOINTS, work
from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.lineage import LINEAGE
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.record import folder_of_trial
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import begin, ended
from onestep.sweeps.suggestion import Suggestion
from onestep.sweeps.trial import experiment_of
from onestep.sweeps.winner import keep_leaders

BATCH: Final = 16
BUDGETS: Final = (2 * BATCH, 4 * BATCH, 7 * BATCH)
BASE: Final = (
    "method=shortcut",
    "data=eight_gaussians",
    "data.samples=200",
    "data.held_out=40",
    "net=mlp",
    "net.width=8",
    "net.depth=1",
    f"training.samples={7 * BATCH}",
    f"training.batch_size={BATCH}",
    "training.threads=1",
)
SETTINGS: Final = SweepSettings(
    name="toy",
    base=BASE,
    space=Space.from_dict(
        {
            "optimizer.lr": {"kind": "log_uniform", "low": 1e-3, "high": 1e-1},
            "learning_rate": {
                "kind": "schedule",
                "shapes": ["constant", "linear"],
                "value": 1.0,
                "start": 1.0,
                "end": {"kind": "uniform", "low": 0.1, "high": 0.9},
                "begin": 0.0,
                "until": 1.0,
            },
        }
    ),
    objectives=Objectives(by_label={"size": Objective(name="eval/w2", nfe=1)}),
    population=3,
    trials=9,
    sampler=SamplerKind.RANDOM,
    seed=1,
    scheduler=Stopping(kind=StoppingKind.PBT),
)


def open_book(storage: RDBStorage, folder: Path, settings: SweepSettings = SETTINGS) -> Book:
    """The book as a process finds it that has just been started."""
    study = begin(storage, "toy-1", settings.objectives)
    return Book(study, settings, base=settings.base, budgets=BUDGETS, folder=folder)


def train(suggestion: Suggestion, folder: Path) -> Path:
    """Train what is suggested, as a process of Ray Tune would."""
    assert suggestion.span is not None
    begun, place = suggestion.beginning, folder_of_trial(folder, suggestion.number, rung=None)
    last = work(
        experiment_of((*BASE, *suggestion.own)).to_dict(),
        place=Place(),
        reporter=MemoryReporter(),
        folder=place,
        resume=checkpoints.latest(place / CHECKPOINTS)
        or (folder / begun.checkpoint if begun else None),
        until=suggestion.span[1] // BATCH,
    )
    assert last is not None
    return last


def finish(book: Book, suggestion: Suggestion, folder: Path, last: Path) -> None:
    """Close a trial with a number that follows from its weights, and tidy up."""
    content = torch.load(last / "state.pt", weights_only=True)
    size = sum(float(one.abs().sum()) for one in content["state"]["averages"][0].values())
    assert suggestion.span is not None
    since, samples = suggestion.span
    book.end(
        suggestion.number,
        [Number(value=size, low=size, high=size)],
        samples=samples,
        report="{}",
        cost=Cost(samples=samples - since),
    )
    keep_leaders(folder, ended(book.study), SETTINGS.objectives, generations=len(BUDGETS))


def run(open_again: Callable[[], Book], folder: Path, *, at_once: int = 1) -> Study:
    """Run a population to its end with a new book for each round of trials, the last one first.

    Args:
        open_again: Opens the book.
        folder: Folder of the sweep.
        at_once: Trials in a round.
    """
    while not (book := open_again()).is_done:
        asked = [one for _ in range(at_once) if (one := book.suggest()) is not None]
        for suggestion in reversed(asked):
            finish(book, suggestion, folder, train(suggestion, folder))
    return book.study


def facts(study: Study) -> list[tuple[Any, ...]]:
    """All that decides a population, trial by trial."""
    return [
        (one.number, one.state, one.params, one.values, one.user_attrs[LINEAGE])
        for one in study.get_trials()
    ]
