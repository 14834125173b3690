import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Final

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from onestep.sweeps.record import Outcome
from onestep.sweeps.searcher import NUMBER, OBJECTIVE, OverrideSearch
from onestep.sweeps.settings import Mode, Objective, SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.study import ended, open_storage, requeue_orphans, storage_url

_TOTAL: Final = 1000
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=("method=mean_flow",),
    space=Space.from_dict({"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}),
    metric=Objective(name="eval/w2", mode=Mode.MAX),
)


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    return open_storage(storage_url(_SETTINGS, tmp_path / "new"))


def search(
    storage: RDBStorage, *, start: int = 0, seed: int = 0, folder: Path = Path("nowhere")
) -> OverrideSearch:
    return OverrideSearch(
        replace(_SETTINGS, seed=seed),
        base=_SETTINGS.base,
        total=_TOTAL,
        folder=folder,
        study_name="toy-1",
        storage=storage,
        start=start,
    )


def row(value: float, samples: int = _TOTAL) -> dict[str, float]:
    return {OBJECTIVE: value, "low": value - 1, "high": value + 1, "samples": samples}


def test_a_trial_is_kept_with_the_overrides_that_repeat_it(storage: RDBStorage) -> None:
    searcher = search(storage)
    suggested = searcher.suggest("a")
    searcher.on_trial_complete("a", row(2.0))
    (trial,) = ended(searcher.study)
    assert list(trial.overrides) == [*_SETTINGS.base, *suggested["overrides"]]
    assert trial.overrides == ("method=mean_flow", f"x={trial.values['x']!r}")
    assert trial.command == f"onestep train method=mean_flow x={trial.values['x']!r}"
    assert trial.outcome is Outcome.FINISHED
    assert (trial.value, trial.interval, trial.samples) == (2.0, (1.0, 3.0), _TOTAL)
    assert searcher.study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_what_ray_tune_keeps_of_a_search_holds_no_password(
    storage: RDBStorage, tmp_path: Path
) -> None:
    searcher = OverrideSearch(
        _SETTINGS,
        base=("storage.tracking_uri=mysql://ada:secret@host/db",),
        total=_TOTAL,
        folder=tmp_path,
        study_name="toy-2",
        storage=storage,
        start=0,
    )
    suggested = searcher.suggest("a")
    searcher.save_to_dir(str(tmp_path))
    assert not list(tmp_path.glob("*.pkl"))
    assert "secret" not in str(suggested) + str(pickle.dumps(searcher))
    (trial,) = searcher.study.get_trials()
    assert trial.user_attrs["overrides"][0] == "storage.tracking_uri=mysql://ada:***@host/db"


def test_the_report_on_a_trial_is_kept_before_the_study_says_that_the_trial_has_ended(
    storage: RDBStorage, tmp_path: Path
) -> None:
    searcher = search(storage, folder=tmp_path)
    searcher.suggest("a")
    (tmp_path / "trials").write_text("no folder")
    with pytest.raises(FileExistsError):
        searcher.on_trial_complete("a", {**row(2.0), "report": "{}"})
    assert not ended(searcher.study)
    (tmp_path / "trials").unlink()
    searcher.on_trial_complete("a", {**row(2.0), "report": "{}"})
    assert len(ended(searcher.study)) == 1
    assert (tmp_path / "trials" / "0.json").read_text() == "{}\n"


def test_progress_without_the_metric_is_let_through_and_a_metric_on_the_way_is_kept(
    storage: RDBStorage,
) -> None:
    searcher = search(storage)
    searcher.suggest("a")
    searcher.on_trial_result("a", {"samples": 100, "loss": 3.0})
    searcher.on_trial_result("a", row(1.0, 500))
    searcher.on_trial_complete("a", row(1.0, 500))
    (frozen,) = searcher.study.get_trials()
    assert frozen.intermediate_values == {500: 1.0}
    assert ended(searcher.study)[0].outcome is Outcome.STOPPED


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_fails_the_trial(storage: RDBStorage, value: float) -> None:
    searcher = search(storage)
    searcher.suggest("a")
    searcher.on_trial_complete("a", row(value))
    (trial,) = ended(searcher.study)
    assert trial.outcome is Outcome.FAILED
    assert trial.value is None
    assert trial.error == f"the metric is {value}"


def test_an_error_is_kept_with_the_trial(storage: RDBStorage) -> None:
    searcher = search(storage)
    for name in ("told", "lost"):
        searcher.suggest(name)
    searcher.on_trial_result("told", {"error": "TrainingDiverged: loss/online is nan"})
    searcher.on_trial_complete("told", {"error": "TrainingDiverged: loss/online is nan"})
    searcher.on_trial_complete("lost", None, error=True)
    told, lost = ended(searcher.study)
    assert told.error == "TrainingDiverged: loss/online is nan"
    assert lost.error.startswith("the trial's process failed")
    assert {told.outcome, lost.outcome} == {Outcome.FAILED}


def test_trials_that_were_cut_off_run_again_and_those_that_ended_do_not(
    storage: RDBStorage,
) -> None:
    first = search(storage)
    for name in ("done", "cut off", "failed", "cut off too"):
        first.suggest(name)
    first.on_trial_complete("done", row(2.0))
    first.on_trial_complete("failed", None, error=True)
    before = {trial.number: trial for trial in ended(first.study)}
    cut_off = [trial.params for trial in first.study.get_trials(states=(TrialState.RUNNING,))]

    assert requeue_orphans(first.study) == 2
    assert requeue_orphans(first.study) == 0
    assert {trial.number: trial for trial in ended(first.study)} == before

    second = search(storage, start=len(first.study.get_trials()))
    for name in ("again", "again too", "new"):
        second.suggest(name)
    running = second.study.get_trials(states=(TrialState.RUNNING,))
    assert [trial.params for trial in running[:2]] == cut_off
    for name in ("again", "again too", "new"):
        second.on_trial_complete(name, row(1.0))
    assert len(ended(second.study)) == 5


def test_the_seed_decides_the_suggestions_and_a_resumed_sampler_does_not_repeat_them(
    tmp_path: Path,
) -> None:
    def first_suggestions(folder: str, *, start: int, seed: int) -> list[float]:
        searcher = search(
            open_storage(storage_url(_SETTINGS, tmp_path / folder)), start=start, seed=seed
        )
        for name in ("a", "b"):
            searcher.suggest(name)
        return [trial.params["x"] for trial in searcher.study.get_trials()]

    once = first_suggestions("1", start=0, seed=3)
    assert first_suggestions("2", start=0, seed=3) == once
    assert not set(first_suggestions("3", start=2, seed=3)) & set(once)


@pytest.mark.parametrize("kind", ["postgresql+nothing", "sqlite+nothing"])
def test_a_database_that_cannot_be_opened_is_named_without_its_password(kind: str) -> None:
    with pytest.raises(ValueError, match=r"//ada:\*\*\*@host/db does not answer: ") as caught:
        open_storage(f"{kind}://ada:secret@host/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["no kind://ada:secret@host/db", "mysql://ada:sec@ret@host/db"])
def test_what_is_no_url_of_a_database_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"a database must .*//ada:\*\*\*@host/db") as caught:
        open_storage(url)
    assert "ret" not in str(caught.value)


def test_the_number_of_a_trial_is_that_of_the_study(storage: RDBStorage) -> None:
    searcher = search(storage)
    assert [searcher.suggest(name)[NUMBER] for name in ("a", "b")] == [0, 1]


@pytest.mark.parametrize("cut_off_at", ["set_user_attr", "enqueue_trial", "tell"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_point_is_asked_for_again_once_however_often_the_sweep_is_killed(
    cut_off_at: str, times: int, storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = search(storage)
    for name in ("a", "b"):
        searcher.suggest(name)
    study = searcher.study
    points = [trial.params for trial in study.get_trials()]
    for _ in range(times):
        with monkeypatch.context() as patch:
            # As if it were killed before this call.
            patch.setattr(study, cut_off_at, cut_off)
            with pytest.raises(KeyboardInterrupt):
                requeue_orphans(study)
    requeue_orphans(study)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert [trial.system_attrs["fixed_params"] for trial in waiting] == points
    assert study.get_trials(states=(TrialState.RUNNING,)) == []

    # A repetition that is cut off in turn is repeated, too.
    second = search(storage, start=4)
    second.suggest("again")
    requeue_orphans(second.study)
    waiting = second.study.get_trials(states=(TrialState.WAITING,))
    assert [trial.system_attrs["fixed_params"] for trial in waiting] == points[::-1]


def cut_off(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt
