"""What follows from a trial, on a study that is remembered."""

from pathlib import Path

from optuna.trial import FrozenTrial

from onestep.sweeps.derived import Derived
from onestep.sweeps.study import begin
from onestep.tests.sweeps.booking import SETTINGS, new_storage


def test_it_is_computed_again_only_for_a_trial_that_has_changed(
    tmp_path: Path, empty_study: Path
) -> None:
    study = begin(new_storage(tmp_path / "new", empty_study), "toy-1", SETTINGS.objectives)
    asked = list[int]()

    def note_of(trial: FrozenTrial) -> str:
        asked.append(trial.number)
        return str(trial.user_attrs.get("note", ""))

    notes, trials = Derived(note_of), [study.ask() for _ in range(3)]

    def found() -> list[str]:
        return [notes.of(one) for one in study.get_trials(deepcopy=False)]

    assert found() == found() == ["", "", ""]
    assert asked == [0, 1, 2]
    trials[1].set_user_attr("note", "new")
    assert found() == found() == ["", "new", ""]
    study.tell(trials[2], 1.0)
    assert found() == ["", "new", ""]
    assert asked == [0, 1, 2, 1, 2]
