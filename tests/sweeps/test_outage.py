"""The database of a sweep goes away while it runs, and comes back."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from optuna.storages import RDBStorage
from ray.exceptions import RayActorError
from ray.tune import Callback
from sqlalchemy import text

from onestep.platform.ray_instance import ray_instance
from onestep.sweeps.outage import DatabaseGone, answering
from onestep.sweeps.record import ERROR, RESULTS, SAMPLES, Outcome
from onestep.sweeps.searcher import BookScheduler, BookSearch
from onestep.sweeps.study import ended, open_storage
from onestep.sweeps.tuning import run_trials
from onestep.tests.sweeps.booking import SETTINGS, TOTAL, new_storage, open_book
from onestep.tests.sweeps.failing import fail_by_number, failed_trial

_NOTES: Final = "trial_user_attributes"
_AWAY: Final = "away"
_URL: Final = "postgresql+psycopg://ada:secret@host/optuna"
_FOUND: Final = {RESULTS: [[1.0, 1.0, 1.0]], SAMPLES: TOTAL}


def rename(storage: RDBStorage, old: str, new: str) -> None:
    """Take a table that every trial writes into out of a database, or bring it back."""
    with storage.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


@pytest.fixture
def storage(tmp_path: Path, empty_study: Path) -> RDBStorage:
    return new_storage(tmp_path / "one", empty_study)


@pytest.mark.parametrize(
    "ask",
    [
        lambda search, scheduler, trial: search.suggest("b"),
        lambda search, scheduler, trial: search.on_trial_complete("a", _FOUND),
        lambda search, scheduler, trial: scheduler.on_trial_result(None, trial, _FOUND),
        lambda search, scheduler, trial: scheduler.on_trial_error(None, trial),
    ],
)
def test_an_outage_ends_the_sweep_and_is_no_death_of_the_trial_that_it_is_at(
    ask: Callable[[BookSearch, BookScheduler, Any], object], storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    search, scheduler = BookSearch(book), BookScheduler(book)
    error = RayActorError(error_msg="killed")
    trial = failed_trial(tmp_path, search.suggest("a"), error)
    rename(storage, _NOTES, _AWAY)
    with pytest.raises(DatabaseGone) as found:
        ask(search, scheduler, trial)
    assert not isinstance(found.value, Exception), "Ray Tune takes those for its trials' own"
    rename(storage, _AWAY, _NOTES)
    again = open_book(storage, tmp_path)
    assert len(again.interrupted) == len(again.study.get_trials())
    assert not any({ERROR, "deaths"} & set(one.user_attrs) for one in again.study.get_trials())


@pytest.mark.parametrize("is_in_tune", [True, False])
def test_an_outage_is_one_sentence_without_the_password(
    is_in_tune: bool, storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    rename(storage, _NOTES, _AWAY)
    said = (
        r"Optuna's database at postgresql\+psycopg://ada:\*\*\*@host/optuna does not answer any "
        r"more: .*no such table: trial_user_attributes; .*`onestep sweep --resume toy-1` goes on"
    )
    with pytest.raises(ValueError, match=said), answering(_URL, name="toy-1"):
        (BookSearch(book).suggest("a") if is_in_tune else book.suggest())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_ends_with_an_outage_and_goes_on_when_the_database_is_back(
    storage: RDBStorage, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, trials=3)

    class Outage(Callback):
        def on_trial_complete(self, *args: Any, **info: Any) -> None:
            rename(storage, _NOTES, _AWAY)

    def run(*callbacks: Callback) -> None:
        book = open_book(storage, tmp_path, settings)
        with answering(_URL, name="toy-1"), ray_instance(num_cpus=1):
            run_trials(
                fail_by_number,
                book,
                resources={"cpu": 1},
                parts={"folder": str(tmp_path)},
                concurrency=1,
                callbacks=callbacks,
                folder=tmp_path / "one",
            )

    before = dict(os.environ)
    with pytest.raises(ValueError, match=r"does not answer any more: .*no such table"):
        run(Outage())
    rename(storage, _AWAY, _NOTES)
    run()
    os.environ.clear()
    os.environ.update(before)
    trials = ended(open_book(storage, tmp_path, settings).study)
    assert [one.outcome for one in trials] == [Outcome.FINISHED, Outcome.FAILED, Outcome.FINISHED]
    assert [len(one.deaths) for one in trials] == [0, 0, 1]  # as without an outage


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_file_that_is_taken_away_is_an_outage_and_goes_on_where_it_is_brought_back(
    is_replaced: bool, tmp_path: Path
) -> None:
    file, away = tmp_path / "optuna.db", tmp_path / "away.db"
    book = open_book(open_storage(f"sqlite:///{file}"), tmp_path)
    book.suggest()
    file.rename(away)
    if is_replaced:
        file.write_bytes(b"")
    said = rf"does not answer any more: {file} is not the file that it was; bring that one back"
    with pytest.raises(ValueError, match=said), answering(_URL, name="toy-1"):
        book.suggest()
    away.rename(file)
    again = open_book(open_storage(f"sqlite:///{file}"), tmp_path)
    assert len(again.interrupted) == 1
