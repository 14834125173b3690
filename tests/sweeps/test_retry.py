"""Trials that meet the outage of a store: they are tried again, or the sweep ends and goes on."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pytest
from optuna.storages import RDBStorage
from ray.exceptions import RayTaskError
from ray.tune import Callback

from onestep.platform.atomic import write_json
from onestep.platform.ray_instance import ray_instance
from onestep.platform.registry.errors import ReferenceNotFound, RegistryUnreachable
from onestep.platform.training.assembly import assemble
from onestep.platform.training.errors import (
    CheckpointAltered,
    FolderNotSeen,
    TrainingDiverged,
    WorkersFailed,
)
from onestep.platform.training.nodes import marked
from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Objectives
from onestep.sweeps.outage import OutageLasts, answering, is_outage
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import (
    DEATHS,
    ERROR,
    OUTAGE,
    OVERRIDES,
    RESULTS,
    RUNG,
    SAMPLES,
    SECONDS_FILE,
    Outcome,
    folder_of_trial,
)
from onestep.sweeps.searcher import BEGINNING, NUMBER, REPORT, SPAN, BookScheduler, BookSearch
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stepped import Row
from onestep.sweeps.study import ended
from onestep.sweeps.trial import try_overrides
from onestep.sweeps.tuning import run_trials
from onestep.tests.sweeps.booking import SETTINGS, TOTAL, new_storage, open_book, suggested
from onestep.tests.sweeps.failing import failed_trial

_REASON: Final = "OSError: [Errno 28] No space left on device"
_URL: Final = "sqlite:////shared/optuna.db"
_BATCH: Final = 32
_TOY: Final = SweepSettings(
    name="toy",
    base=(
        "method=mean_flow",
        "data=eight_gaussians",
        "data.samples=500",
        "data.held_out=80",
        "net=mlp",
        "net.width=8",
        f"training.samples={8 * _BATCH}",
        f"training.batch_size={_BATCH}",
        f"training.checkpoint_every={4 * _BATCH}",
        "training.threads=1",
        "evaluation.nfes=[1]",
        "evaluation.samples=64",
    ),
    space=Space.from_dict({"optimizer.lr": {"kind": "uniform", "low": 0.01, "high": 0.02}}),
    objectives=Objectives.from_dict({"quality": {"name": "eval/w2", "nfe": 1}}),
    trials=2,
    concurrency=1,
    startup=1,
    retries=2,
)


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RegistryUnreachable("away"), True),
        (FolderNotSeen("node 7"), True),
        (OSError(28, "No space left on device"), True),
        (OSError(116, "Stale file handle"), True),
        (TimeoutError("no answer"), True),
        (FileNotFoundError(2, "No such file", "/home/ada/.onestep/sweeps/s/x.json"), True),
        (FileNotFoundError(2, "No such file", "/data/pairs/set.json"), False),
        (PermissionError(13, "Permission denied", "/data/pairs/set.json"), False),
        (OSError(5, "Input/output error", "/data/pairs/set.json"), True),
        (because(CheckpointAltered("cannot be read"), OSError(116, "Stale file handle")), True),
        (because(CheckpointAltered("not whole"), FileNotFoundError(2, "No such file")), False),
        (because(WorkersFailed("Ray gave up"), RegistryUnreachable("away")), True),
        (WorkersFailed("Ray gave up"), False),
        (TrainingDiverged("loss is nan"), False),
        (ReferenceNotFound("no such model"), False),
        (ValueError("optimizer.lr must be positive"), False),
    ],
)
def test_what_stores_and_nodes_do_is_told_from_what_was_tried(
    error: Exception, is_one: bool
) -> None:
    assert is_outage(error, places=[Path("/home/ada/.onestep")]) is is_one


@pytest.fixture
def storage(tmp_path: Path, empty_study: Path) -> RDBStorage:
    return new_storage(tmp_path / "one", empty_study)


def get_further(folder: Path, samples: int) -> None:
    """Write down what a trial had taken when it kept a checkpoint."""
    file = folder_of_trial(folder, 0, rung=None) / SECONDS_FILE
    write_json(file, asdict(Cost(samples=samples)))


def put_off(book: Book) -> bool:
    return book.put_off(suggested(book), _REASON)


def test_an_outage_is_no_death_and_the_trial_goes_on_where_none_is_retried(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path, replace(SETTINGS, retries=0))
    first = book.suggest()
    assert first is not None
    assert book.put_off(first.number, _REASON)
    assert book.suggest() == first
    (trial,) = book.study.get_trials()
    assert not {ERROR, DEATHS} & set(trial.user_attrs)


def test_the_third_outage_without_getting_further_ends_the_sweep_and_no_trial(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    assert put_off(book)
    assert put_off(book)
    get_further(tmp_path, 500)
    assert put_off(book), "it had got further"
    assert put_off(book)
    said = (
        rf"trial 0 could not go on 3 times in a row: {_REASON[:7]}.*no trial has failed by it, .*"
    )
    with (
        pytest.raises(ValueError, match=said + r"`onestep sweep --resume toy-1` goes on"),
        answering(_URL, name="toy-1"),
    ):
        put_off(book)
    again = open_book(storage, tmp_path)
    assert [one.number for one in again.interrupted] == [0]


def test_a_trial_that_meets_outages_in_every_run_of_its_sweep_is_given_up_at_last(
    storage: RDBStorage, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, retries=2)
    for _ in range(settings.retries):
        book = open_book(storage, tmp_path, settings)
        assert put_off(book)
        assert put_off(book)
        with pytest.raises(OutageLasts):
            put_off(book)
    book = open_book(storage, tmp_path, settings)
    assert not put_off(book)
    (trial,) = ended(book.study)
    assert (trial.outcome, trial.reason) == (Outcome.FAILED, f"no retry is left after: {_REASON}")


def test_what_a_trial_says_of_an_outage_passes_through_ray_tune(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    search, scheduler = BookSearch(book), BookScheduler(book)
    error = RayTaskError("try_overrides", "Traceback", OSError(28, "No space left on device"))

    def fail(name: str) -> None:
        trial = failed_trial(tmp_path, search.suggest(name), error, {OUTAGE: _REASON})
        scheduler.on_trial_error(None, trial)
        search.on_trial_complete(name, trial.last_result, error=True)

    fail("a")
    fail("b")
    with pytest.raises(OutageLasts) as found:
        fail("c")
    assert not isinstance(found.value, Exception), "Ray Tune takes those for its trials' own"


def test_a_folder_that_is_taken_away_from_the_sweep_itself_is_an_outage(
    storage: RDBStorage, tmp_path: Path
) -> None:
    place = tmp_path / "shared"
    search = BookSearch(open_book(storage, place))
    search.suggest("a")
    place.write_text("another thing")
    last = {RESULTS: [[1.0, 1.0, 1.0]], SAMPLES: TOTAL, REPORT: "{}"}
    with pytest.raises(OutageLasts, match="NotADirectoryError"):
        search.on_trial_complete("a", last)
    place.unlink()
    again = open_book(storage, place)
    assert [one.number for one in again.interrupted] == [0]
    again_search = BookSearch(again)
    again_search.suggest("a")
    again_search.on_trial_complete("a", last)
    assert [one.outcome for one in ended(again.study)] == [Outcome.FINISHED]


def parts_of(folder: Path) -> dict[str, Any]:
    """What each trial of the toy sweep is given."""
    plan = Plan.of(_TOY)
    return {
        "objectives": _TOY.objectives.to_dict(),
        "budgets": (),
        "last_rung": 0,
        "folder": str(folder),
        "base": plan.base,
        "benchmark": plan.benchmark(assemble(plan.experiment).source.load()),
        "environment": {},
        "wandb": False,
        "pause_s": 0.1,
    }


@pytest.fixture
def parts(tmp_path: Path, home_folder: Path) -> dict[str, Any]:
    return parts_of(tmp_path / "sweep")


def run_one(parts: dict[str, Any], *more: str) -> tuple[list[Row], Callable[[], Row]]:
    """The rows of a trial, and what runs it."""
    rows = list[Row]()
    own = ["optimizer.lr=0.01", *more]
    config = {NUMBER: 0, OVERRIDES: own, RUNG: None, BEGINNING: None, SPAN: None}
    return rows, lambda: try_overrides(config, tell=rows.append, **parts)


def test_a_trial_without_its_folder_says_so_and_goes_on_where_it_is_back(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "sweep"
    rows, run = run_one(parts)
    place.write_text("another thing")
    with pytest.raises(NotADirectoryError):
        run()
    (row,) = rows
    assert str(row[OUTAGE]).startswith("NotADirectoryError: ")
    place.unlink()
    assert RESULTS in run()


def test_a_trial_whose_teacher_is_in_a_store_that_is_away_says_so(parts: dict[str, Any]) -> None:
    away = parts | {"environment": {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}}
    before = dict(os.environ)
    rows, run = run_one(away, "parents.initial=teacher/1")
    with pytest.raises(RegistryUnreachable):
        run()
    os.environ.clear()
    os.environ.update(before)
    assert "does not answer" in str(rows[-1][OUTAGE])


def test_a_point_that_cannot_be_trained_is_a_failed_trial(parts: dict[str, Any]) -> None:
    rows, run = run_one(parts, "training.batch_size=100000")
    assert str(run()[ERROR]).startswith("ValueError: ")
    assert rows == []


def test_a_trial_on_a_node_with_another_folder_writes_nothing_and_says_so(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    with marked(tmp_path / "sweep") as (file, nonce):
        rows, run = run_one(parts | {"mark": (file, nonce)})
        file.write_text("that of another folder")
        with pytest.raises(FolderNotSeen):
            run()
        assert "does not see the folder" in str(rows[-1][OUTAGE])
        assert list((tmp_path / "sweep").iterdir()) == [file]
        file.write_text(nonce)
        assert RESULTS in run()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_outlives_a_short_outage_and_goes_on_after_a_long_one(
    storage: RDBStorage, parts: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "sweep"
    trials = place / "trials"

    class BackAfter(Callback):
        """Gives the folder of the trials back after some failures."""

        def __init__(self, count: int) -> None:
            self.count, self.seen = count, 0

        def on_trial_error(self, *args: Any, **info: Any) -> None:
            self.seen += 1
            if self.seen == self.count:
                trials.unlink()

    def run(callback: BackAfter) -> None:
        book = open_book(storage, place, _TOY)
        with answering(_URL, name="toy-1"), ray_instance(num_cpus=1):
            run_trials(
                try_overrides,
                book,
                resources={"cpu": 1},
                parts=parts,
                concurrency=1,
                callbacks=[callback],
                folder=place,
            )

    before = dict(os.environ)
    place.mkdir()
    trials.write_text("another thing")
    with pytest.raises(ValueError, match=r"trial 0 could not go on 3 times in a row: NotADir"):
        run(BackAfter(9))
    short = BackAfter(1)
    run(short)
    os.environ.clear()
    os.environ.update(before)
    assert short.seen == 1
    found = ended(open_book(storage, place, _TOY).study)
    assert [one.outcome for one in found] == [Outcome.FINISHED, Outcome.FINISHED]
    assert [one.deaths for one in found] == [(), ()]
