import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from onestep.platform.training import checkpoint as checkpoints
from onestep.platform.training.errors import CheckpointAltered
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work
from onestep.sweeps.ancestry import ancestry
from onestep.sweeps.book import Book
from onestep.sweeps.cost import Budget
from onestep.sweeps.lineage import Lineage, ancestors, needed
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import Outcome, folder_of_trial
from onestep.sweeps.report import result_of_sweep, table
from onestep.sweeps.restart import restart
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import ended, open_storage
from onestep.sweeps.trial import experiment_of
from onestep.sweeps.winner import unregistered
from onestep.tests.platform.training.group import assert_equal, state_at
from onestep.tests.sweeps.populating import (
    BASE,
    BATCH,
    BUDGETS,
    SETTINGS,
    facts,
    finish,
    open_book,
    run,
    train,
)

_KINDS: Final = {
    kind: replace(SETTINGS, scheduler=Stopping(kind=kind))
    for kind in (StoppingKind.PBT, StoppingKind.PB2)
}
Opener = Callable[[str, SweepSettings], Book]


@pytest.fixture
def opener(tmp_path: Path, empty_study: Path) -> Opener:
    """Opens the book of a sweep in a folder of its own, again and again."""
    storages: dict[str, RDBStorage] = {}

    def opened(name: str, settings: SweepSettings) -> Book:
        if name not in storages:
            (tmp_path / name).mkdir()
            shutil.copy(empty_study, tmp_path / name / "optuna.db")
            storages[name] = open_storage(f"sqlite:///{tmp_path / name / 'optuna.db'}")
        return open_book(storages[name], tmp_path / name, settings)

    return opened


@pytest.mark.parametrize("kind", list(_KINDS))
def test_a_population_is_the_same_in_one_go_in_any_order_and_with_a_kill_after_every_round(
    opener: Opener, tmp_path: Path, kind: StoppingKind
) -> None:
    settings = _KINDS[kind]
    whole = opener("whole", settings)
    study = run(lambda: whole, tmp_path / "whole")
    again = run(lambda: opener("killed", settings), tmp_path / "killed", at_once=2)
    assert facts(again) == facts(study)
    lineages = [one.lineage for one in ended(study)]
    assert [(it.member, it.generation) for it in lineages if it] == [
        (member, generation) for generation in range(3) for member in range(3)
    ]
    copies = [it for it in lineages if it and it.was_replaced]
    assert len(copies) == 2  # one for each generation after the first
    assert all(it.changes for it in copies)


def test_the_own_overrides_of_each_last_trial_train_its_whole_line_again_bit_for_bit(
    opener: Opener, tmp_path: Path
) -> None:
    book = opener("sweep", SETTINGS)
    trials = ended(run(lambda: book, tmp_path / "sweep"))
    lineages = {one.number: one.lineage for one in trials if one.lineage}
    last = [number for number, one in lineages.items() if one.generation == len(BUDGETS) - 1]
    assert any(lineages[number].changes for number in last)
    assert any(not lineages[number].changes for number in last)
    for number in last:
        line = ancestors(number, lineages)
        assert [lineages[one].generation for one in line] == [0, 1, 2]
        again = work(
            experiment_of((*BASE, *lineages[number].own)).to_dict(),
            place=Place(),
            reporter=MemoryReporter(),
            folder=tmp_path / f"again-{number}",
        )
        kept = checkpoints.latest(
            folder_of_trial(tmp_path / "sweep", number, rung=None) / "checkpoints"
        )
        assert again is not None
        assert kept is not None
        assert_equal(state_at(again), state_at(kept))
    trial = trials[last[0]]
    assert trial.command.startswith("onestep train method=shortcut")
    assert trial.samples == 7 * BATCH
    assert trial.cost.samples == 3 * BATCH


def test_table_and_ancestry_tell_who_went_on_from_whom_and_with_which_numbers(
    opener: Opener, tmp_path: Path
) -> None:
    book = opener("sweep", SETTINGS)
    trials = ended(run(lambda: book, tmp_path / "sweep"))
    copy = next(one for one in trials if one.lineage and one.lineage.was_replaced)
    assert copy.lineage is not None
    assert copy.lineage.parent is not None
    parent = trials[copy.lineage.parent]
    first, second = ancestry(copy, trials, SETTINGS.objectives)[:2]
    old, new = (f"{one.values['optimizer.lr']:.4g}" for one in (parent, copy))
    assert first.startswith(f"samples 0 to 32: trial {parent.number} of member")
    assert f"with optimizer.lr {old}, " in first
    assert second.startswith(f"samples 32 to 64: trial {copy.number} of member")
    assert f"with optimizer.lr {new} (was {old}), " in second
    text = table(trials, SETTINGS, name="toy")
    row = next(line for line in text.splitlines() if line.startswith(f"| {copy.number} "))
    assert f"trial {parent.number}" in row
    assert "- samples 0 to 32: trial" in text


def finish_founders(book: Book, folder: Path) -> None:
    """Train the first members of a population and end them."""
    for _ in range(3):
        suggestion = book.suggest()
        assert suggestion is not None
        finish(book, suggestion, folder, train(suggestion, folder))


def test_a_checkpoint_that_somebody_has_deleted_is_missed_in_one_sentence(
    opener: Opener, tmp_path: Path
) -> None:
    book = opener("sweep", SETTINGS)
    finish_founders(book, tmp_path / "sweep")
    for number in range(3):
        shutil.rmtree(folder_of_trial(tmp_path / "sweep", number, rung=None) / "checkpoints")
    with pytest.raises(CheckpointAltered, match=r"no checkpoint of trial \d any more, from which"):
        book.suggest()


def test_a_trial_that_was_cut_off_begins_again_from_the_same_checkpoint(
    opener: Opener, tmp_path: Path
) -> None:
    first = opener("sweep", SETTINGS)
    finish_founders(first, tmp_path / "sweep")
    child = first.suggest()
    assert child is not None
    assert child.beginning is not None
    assert child.span == (2 * BATCH, 4 * BATCH)
    second = opener("sweep", SETTINGS)
    assert len(second.interrupted) == 1
    (cut_off,) = second.interrupted
    parent = child.beginning.checkpoint.split("/")[1]
    said = restart(cut_off, Plan.of(SETTINGS), tmp_path / "sweep")
    assert said == f"trial 3 begins anew from the end of trial {parent}"
    assert second.suggest() == child


def test_a_generation_waits_for_the_one_before(opener: Opener, tmp_path: Path) -> None:
    book = opener("sweep", SETTINGS)
    founders = [book.suggest() for _ in range(3)]
    assert book.suggest() is None
    for suggestion in founders[1:]:
        assert suggestion is not None
        finish(book, suggestion, tmp_path / "sweep", train(suggestion, tmp_path / "sweep"))
        assert book.suggest() is None
    assert not book.is_done


def test_who_fails_goes_on_from_the_best_and_a_population_of_failures_is_over(
    opener: Opener, tmp_path: Path
) -> None:
    book = opener("sweep", SETTINGS)
    for fails in (True, True, False):
        suggestion = book.suggest()
        assert suggestion is not None
        if fails:
            book.fail(suggestion.number, "it diverged")
        else:
            finish(book, suggestion, tmp_path / "sweep", train(suggestion, tmp_path / "sweep"))
    children = [book.suggest() for _ in range(3)]
    lineages = [one.lineage for one in ended(book.study)]
    assert len(lineages) == 3
    begun = {one.beginning.checkpoint for one in children if one and one.beginning}
    assert begun == {"trials/2/checkpoints/step-0000000002"}
    for one in children:
        assert one is not None
        book.fail(one.number, "it diverged")
    assert book.suggest() is None
    assert book.is_done
    outcomes = [one.outcome for one in ended(book.study)]
    assert outcomes == [Outcome.FAILED] * 2 + [Outcome.FINISHED] + [Outcome.FAILED] * 3


def test_weights_stay_as_long_as_somebody_may_go_on_from_them(
    opener: Opener, tmp_path: Path
) -> None:
    folder, book, kept = tmp_path / "sweep", opener("sweep", SETTINGS), []
    while (suggestion := book.suggest()) is not None:
        finish(book, suggestion, folder, train(suggestion, folder))
        found = folder.glob("trials/*/checkpoints")
        kept.append(sorted(int(one.parent.name) for one in found))
    assert kept[2] == [0, 1, 2]
    assert kept[3:6] == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [3, 4, 5]]
    assert kept[-1] == [6, 7, 8]


def test_a_failure_counts_to_its_generation_when_weights_are_deleted() -> None:
    lineages = {
        number: Lineage(member=number % 2, generation=number // 2, own=()) for number in range(5)
    }
    assert needed(lineages, generations=4) == {2, 3, 4}
    assert needed({k: lineages[k] for k in range(4)}, generations=4) == {2, 3}
    assert needed({k: lineages[k] for k in range(4)}, generations=2) == set()
    assert needed({}, generations=1) == set()


def test_a_budget_counts_the_samples_of_each_generation(opener: Opener, tmp_path: Path) -> None:
    settings = replace(SETTINGS, budget=Budget(samples=3 * 4 * BATCH + 3 * BATCH))
    book = opener("sweep", settings)
    study = run(lambda: book, tmp_path / "sweep")
    # Two generations of two batches and one more of three: the rest would exceed the budget.
    assert [one.state for one in study.get_trials()] == [TrialState.COMPLETE] * 7
    assert book.spent == f"{15 * BATCH} of {15 * BATCH} samples"


@pytest.mark.parametrize(
    ("batches", "best", "said"),
    [
        (3 * 4 + 3, 6, ""),
        (3 * 2 + 3, 3, "no member of the population is whole, the best has seen 64 of 112 samples"),
    ],
)
def test_of_a_population_without_budget_a_whole_member_is_the_best_or_it_is_said_that_none_is(
    opener: Opener, tmp_path: Path, batches: int, best: int, said: str
) -> None:
    settings, folder = replace(SETTINGS, budget=Budget(samples=batches * BATCH)), tmp_path / "sweep"
    study = run(lambda: opener("sweep", settings), folder)
    result = result_of_sweep(ended(study), settings, study_name="toy-1", storage="", folder=folder)
    assert result.best.number == best
    reason = unregistered(result.best, BUDGETS[-1])
    assert said in reason if said else not reason
    assert (folder_of_trial(folder, best, rung=None) / "checkpoints").exists()
