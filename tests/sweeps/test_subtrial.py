from dataclasses import replace
from pathlib import Path
from typing import Final

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.posthoc import PostHoc
from onestep.sweeps.record import TrialRecord
from onestep.sweeps.searcher import BookSearch
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.study import begin, ended, open_storage
from onestep.sweeps.subtrial import SubTrial, Way, substudy_of, subtrials_of
from onestep.sweeps.suggestion import Suggestion

_SETTINGS: Final = SweepSettings(
    name="toy",
    base=(),
    space=Space.from_dict({"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=2)}),
    posthoc=PostHoc.from_dict(
        {
            "space": {
                "ema.width": {"kind": "log_uniform", "low": 0.02, "high": 0.2},
                "sampler": {"kind": "choice", "values": [None, "jumps"]},
            }
        }
    ),
)
_ONE: Final = Number(value=1.0, low=0.5, high=2.0)
_TRIED: Final = (
    SubTrial(
        place=0,
        values={},
        said="as trained",
        tuned=(_ONE,),
        judged=(replace(_ONE, value=1.5),),
        ways=(Way(nfe=2, quality=_ONE, latency=_ONE), Way(nfe=4, quality=_ONE, latency=None)),
        seconds=2.5,
    ),
    SubTrial(
        place=1,
        values={"ema.width": 0.1 / 3, "sampler": None},
        said="ema.width=0.03333",
        tuned=(replace(_ONE, value=0.7),),
        judged=(replace(_ONE, value=0.9),),
    ),
    SubTrial(place=2, values={"ema.width": 0.1, "sampler": "jumps"}, said="x", error="no numbers"),
)


@pytest.fixture
def storage(tmp_path: Path, empty_study: Path) -> RDBStorage:
    file = tmp_path / "optuna.db"
    file.write_bytes(empty_study.read_bytes())
    return open_storage(f"sqlite:///{file}")


def open_book(storage: RDBStorage, folder: Path) -> Book:
    return Book(
        begin(storage, "toy-1", _SETTINGS.objectives),
        _SETTINGS,
        base=(),
        budgets=(100,),
        folder=folder,
        substudy=substudy_of(storage, "toy-1", _SETTINGS),
    )


def suggested(book: Book) -> Suggestion:
    found = book.suggest()
    assert found is not None
    return found


def test_a_trial_that_was_cut_off_is_told_what_was_tried_on_its_weights(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    first, second = suggested(book), suggested(book)
    assert first.known == second.known == ()
    for one in _TRIED:
        book.tried(first.number, one)
    book.tried(second.number, _TRIED[0])

    again = open_book(storage, tmp_path)
    assert [suggested(again).known for _ in range(2)] == [_TRIED, _TRIED[:1]]
    search = BookSearch(open_book(storage, tmp_path))
    known = search.suggest("a")["known"]
    assert tuple(SubTrial.from_dict(one) for one in known) == _TRIED


def test_a_sub_trial_that_is_known_is_not_written_down_again(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    number = suggested(book).number
    book.tried(number, _TRIED[0])
    book.tried(number, replace(_TRIED[0], seconds=9.0))
    assert subtrials_of(book.study) == {(number, None): _TRIED[:1]}


def test_the_study_of_sub_trials_shows_their_keys_and_values_and_counts_for_no_trial(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    number = suggested(book).number
    for one in _TRIED:
        book.tried(number, one)
    study = optuna.load_study(study_name="toy-1-posthoc", storage=storage)
    assert study.metric_names == ["quality: eval/w2 at 2 NFE"]
    assert [trial.params for trial in study.trials] == [dict(one.values) for one in _TRIED]
    assert [trial.values for trial in study.trials] == [[1.0], [0.7], None]
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]
    assert {trial.user_attrs["parent"] for trial in study.trials} == {number}
    assert len(book.study.trials) == 1


def test_a_trial_keeps_the_setting_that_it_is_judged_in_beside_its_worth_as_it_was_trained(
    storage: RDBStorage, tmp_path: Path
) -> None:
    book = open_book(storage, tmp_path)
    number = suggested(book).number
    chosen = {
        "place": 1,
        "values": {"ema.width": 0.05, "sampler": None},
        "said": "ema.width=0.05",
        "as_trained": [[1.5, 0.5, 2.0]],
    }
    cost = Cost(wall_s=9.0, posthoc_s=4.0)
    book.end(number, [_ONE], samples=100, report="{}", cost=cost, chosen=chosen)
    (trial,) = ended(book.study)
    assert trial == TrialRecord(
        number=number,
        overrides=trial.overrides,
        revisions=trial.revisions,
        values=trial.values,
        outcome=trial.outcome,
        results=(_ONE,),
        samples=100,
        cost=cost,
        reason="",
        chosen=1,
        posthoc={"ema.width": 0.05, "sampler": None},
        said="ema.width=0.05",
        as_trained=(Number(value=1.5, low=0.5, high=2.0),),
    )
    assert book.study.trials[0].values == [1.0]
