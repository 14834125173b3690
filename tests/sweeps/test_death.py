"""Deaths of processes are told from errors of trials, and retried up to the limit."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)
from ray.tune.search import Searcher

from onestep.platform.ray_instance import ray_instance
from onestep.sweeps.book import UNEXPECTED, Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.death import death_of
from onestep.sweeps.journal import line_of
from onestep.sweeps.ledger import Ledger
from onestep.sweeps.objective import Mode, Number, Objective, Objectives
from onestep.sweeps.record import Outcome
from onestep.sweeps.report import table
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.searcher import NUMBER, BookScheduler, BookSearch
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import begin, ended, open_storage, storage_url
from onestep.sweeps.tuning import run_trials
from onestep.tests.sweeps.failing import (
    DIES,
    RAISES,
    fail_by_number,
    failed_trial,
)

_KILLED: Final = """The actor died unexpectedly before finishing this task.
	actor_id: 1234
The actor is dead because its node has died."""
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=(),
    space=Space.from_dict({"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}),
    objectives=Objectives(by_label={"q": Objective(name="eval/w2", nfe=1, mode=Mode.MIN)}),
    trials=4,
    startup=2,
    retries=2,
)


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("try_overrides", "Traceback", cause)


@pytest.mark.parametrize(
    ("error", "last", "death"),
    [
        (RayActorError(error_msg=_KILLED), {}, "The actor is dead because its node has died."),
        (ActorUnavailableError("no answer", b"1" * 16), {}, "no answer"),
        (task_error(NodeDiedError("node 7 died")), {}, "node 7 died"),
        (OutOfMemoryError("killed at my://ada:secret@host"), {}, "killed at my://ada:***@host"),
        (RayActorError(error_msg=_KILLED), {"error": "ValueError: no"}, None),
        (task_error(RuntimeError("no such thing")), {}, None),
        (task_error(MemoryError()), {}, None),
        (ActorDiedError(task_error(RuntimeError("no module"))), {}, None),
    ],
)
def test_a_death_is_told_from_an_error_of_the_trial_itself(
    error: Exception, last: dict[str, Any], death: str | None, tmp_path: Path
) -> None:
    found = death_of(failed_trial(tmp_path, {}, error, last))
    assert (found is None) is (death is None)
    assert death is None or death in str(found)
    assert "secret" not in str(found)


@pytest.fixture
def book(tmp_path: Path, empty_study: Path) -> Book:
    return open_book(tmp_path / "one", empty_study)


def open_book(folder: Path, empty_study: Path, settings: SweepSettings = _SETTINGS) -> Book:
    """The book as a process finds it that has just been started."""
    if not folder.exists():
        folder.mkdir()
        shutil.copy(empty_study, folder / "optuna.db")
    study = begin(open_storage(storage_url(settings, folder)), "toy-1", settings.objectives)
    budgets = settings.scheduler.budgets(1000)
    return Book(study, settings, base=(), budgets=budgets, folder=folder)


def number_of(book: Book) -> int:
    suggestion = book.suggest()
    assert suggestion is not None
    return suggestion.number


def finish(book: Book, number: int) -> None:
    value = book.study.get_trials()[number].params["x"]
    found = [Number(value=value, low=value, high=value)]
    book.end(number, found, samples=1000, report="{}", cost=Cost())


def test_a_trial_whose_process_died_is_the_next_one_under_its_own_number_and_point(
    book: Book,
) -> None:
    first, other = book.suggest(), book.suggest()
    assert first is not None
    assert other is not None
    assert book.lose(first.number, "its node has died")
    assert not book.is_done
    assert book.suggest() == first
    finish(book, first.number)
    (trial,) = ended(book.study)
    assert (trial.outcome, trial.deaths) == (Outcome.FINISHED, ("its node has died",))


def test_the_last_retry_is_followed_by_a_failure_even_if_the_sweep_was_killed_in_between(
    book: Book, tmp_path: Path, empty_study: Path
) -> None:
    assert book.lose(number_of(book), "first")
    assert book.lose(number_of(book), "second")
    again = open_book(tmp_path / "one", empty_study)
    assert len(again.interrupted) == 1
    assert not again.lose(number_of(again), "third")
    (trial,) = ended(again.study)
    assert (trial.outcome, trial.deaths) == (Outcome.FAILED, ("first", "second", "third"))
    assert trial.reason == "no retry is left after: third"
    assert number_of(again) == 1


def test_without_retries_a_death_is_a_failure(tmp_path: Path, empty_study: Path) -> None:
    book = open_book(tmp_path / "one", empty_study, replace(_SETTINGS, retries=0))
    assert not book.lose(number_of(book), "killed")
    assert [trial.outcome for trial in ended(book.study)] == [Outcome.FAILED]


def test_the_last_trial_of_a_sweep_is_retried_while_nothing_else_runs(
    book: Book, tmp_path: Path
) -> None:
    for _ in range(3):
        finish(book, number_of(book))
    searcher, scheduler = BookSearch(book), BookScheduler(book)
    config = searcher.suggest("last")
    assert searcher.suggest("no other") is None
    scheduler.on_trial_error(None, failed_trial(tmp_path, config, RayActorError(error_msg=_KILLED)))
    searcher.on_trial_complete("last", None, error=True)
    again = searcher.suggest("again")
    assert again[NUMBER] == config[NUMBER]
    last = {"samples": 1000, "results": [[1.0, 1.0, 1.0]], "report": "{}"}
    searcher.on_trial_complete("again", last)
    assert searcher.suggest("more") == Searcher.FINISHED


@pytest.mark.parametrize("sampler", [SamplerKind.TPE, SamplerKind.RANDOM, SamplerKind.QMC])
def test_the_suggestions_are_those_of_a_sweep_in_which_nothing_died(
    sampler: SamplerKind, tmp_path: Path, empty_study: Path
) -> None:
    settings = replace(_SETTINGS, sampler=sampler, trials=6)
    whole = open_book(tmp_path / "whole", empty_study, settings)
    dying = open_book(tmp_path / "dying", empty_study, settings)
    for _ in range(settings.trials):
        finish(whole, number_of(whole))
        for reason in ("first", "second"):
            assert dying.lose(number_of(dying), reason)
        finish(dying, number_of(dying))
    points = [[one.params for one in book.study.get_trials()] for book in (whole, dying)]
    assert points[0] == points[1]
    assert [one.values for one in dying.study.get_trials()] == [
        one.values for one in whole.study.get_trials()
    ]


def test_a_trial_that_was_told_to_stop_is_stopped_even_if_it_dies_first(
    tmp_path: Path, empty_study: Path
) -> None:
    stopping = Stopping(kind=StoppingKind.ASHA, grace_samples=500, reduction=2)
    settings = replace(_SETTINGS, scheduler=stopping)
    book = open_book(tmp_path / "one", empty_study, settings)
    good, bad = number_of(book), number_of(book)
    for number, value in ((good, 1.0), (bad, 2.0)):
        found = [Number(value=value, low=value, high=value)]
        is_over = book.measured(number, found, samples=500, cost=Cost())
        assert is_over is (number == bad)
    assert not book.lose(bad, "killed")
    (trial,) = ended(book.study)
    assert (trial.number, trial.outcome) == (bad, Outcome.STOPPED)


def test_tables_and_the_ledger_tell_of_deaths(book: Book) -> None:
    number = number_of(book)
    book.lose(number, "its node has died")
    finish(book, number_of(book))
    trials = ended(book.study)
    assert "| finished: its process died 1 time |" in table(trials, _SETTINGS, name="toy-1")
    assert ", its process died 1 time\n" in line_of(trials[0], _SETTINGS)
    ledger = Ledger.of(trials, _SETTINGS.budget, lambda one: one.samples)
    assert [one["deaths"] for one in ledger.to_dict()["trials"]] == [1]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_ray_tune_has_its_trials_retried_if_they_die_and_not_if_they_raise(
    tmp_path: Path, empty_study: Path
) -> None:
    book = open_book(tmp_path / "one", empty_study, replace(_SETTINGS, retries=1))
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    before = dict(os.environ)
    with ray_instance(num_cpus=1):
        run_trials(
            fail_by_number,
            book,
            resources={"cpu": 1},
            parts={"folder": str(deaths)},
            concurrency=1,
            callbacks=[],
            folder=tmp_path / "one",
        )
    os.environ.clear()
    os.environ.update(before)
    trials = ended(book.study)
    failed, finished = Outcome.FAILED, Outcome.FINISHED
    assert [one.outcome for one in trials] == [finished, failed, finished, failed]
    assert [len(one.deaths) for one in trials] == [0, 0, 1, 2]
    assert trials[RAISES].reason == UNEXPECTED
    assert all(
        text.startswith("The actor is dead because its worker process has died.")
        for one in trials
        for text in one.deaths
    )
    assert trials[DIES].reason == f"no retry is left after: {trials[DIES].deaths[-1]}"
    assert sorted(file.name for file in deaths.iterdir()) == ["2-0", "3-0", "3-1"]
