import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from onestep.sweeps.cost import Cost
from onestep.sweeps.journal import line_of
from onestep.sweeps.lineage import Lineage
from onestep.sweeps.objective import Mode, Number, Objective, Objectives
from onestep.sweeps.record import Outcome, TrialRecord
from onestep.sweeps.report import ranked, result_of_sweep, table, write_report
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space

_SETTINGS: Final = SweepSettings(
    name="toy",
    base=("method=mean_flow",),
    space=Space.from_dict(
        {
            "x": {"kind": "log_uniform", "low": 0.1, "high": 1.0},
            "optimizer": {"kind": "choice", "values": ["adam", "radam"]},
        }
    ),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1)}),
)


_REASONS: Final = {
    Outcome.FAILED: "TrainingDiverged: loss/online is nan",
    Outcome.STOPPED: "asha at 1000 samples",
}


def trial(which: int, value: float | None, outcome: Outcome = Outcome.FINISHED) -> TrialRecord:
    return TrialRecord(
        number=which,
        overrides=("method=mean_flow", f"x={which / 10}", "name='two words'"),
        values={"x": (which + 1) / 10, "optimizer": "adam"},
        outcome=outcome,
        results=() if value is None else (number(value),),
        samples=0 if value is None else 1000,
        cost=Cost(),
        reason=_REASONS.get(outcome, ""),
    )


def number(value: float) -> Number:
    return Number(value=value, low=value - 0.5, high=value + 0.25)


_TRIALS: Final = (
    trial(0, 2.0),
    trial(1, None, Outcome.FAILED),
    trial(2, 0.5, Outcome.STOPPED),
    trial(3, 1.0),
)


def test_whole_trials_come_before_stopped_ones_and_those_before_failed_ones() -> None:
    smallest, largest = (
        Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1, mode=mode)})
        for mode in (Mode.MIN, Mode.MAX)
    )
    assert [one.number for one in ranked(_TRIALS, smallest)] == [3, 0, 2, 1]
    assert [one.number for one in ranked(_TRIALS, largest)] == [0, 3, 2, 1]


def test_a_few_samples_of_the_last_batch_decide_nothing() -> None:
    """Of 1000 samples batches of 64 make 960, and of the 500 of a rung 448."""
    objectives = _SETTINGS.objectives
    whole = [replace(trial(0, 0.1), samples=960), replace(trial(1, 5.0), samples=1000)]
    assert [one.number for one in ranked(whole, objectives)] == [0, 1]
    stopped = [
        replace(trial(which, value, Outcome.STOPPED), samples=samples, rung=rung)
        for which, value, samples, rung in ((2, 0.1, 448, 1), (3, 5.0, 500, 1), (4, 0.01, 250, 0))
    ]
    assert [one.number for one in ranked(stopped, objectives)] == [2, 3, 4]


def test_who_was_stopped_later_comes_first_and_so_does_the_newer_generation() -> None:
    early = [
        replace(trial(which, value, Outcome.STOPPED), samples=samples)
        for which, value, samples in ((0, 0.1, 250), (1, 5.0, 500))
    ]
    assert [one.number for one in ranked(early, _SETTINGS.objectives)] == [1, 0]
    members = [
        replace(one, outcome=Outcome.FINISHED, lineage=Lineage(member=0, generation=k, own=()))
        for k, one in enumerate(early)
    ]
    assert [one.number for one in ranked(members, _SETTINGS.objectives)] == [1, 0]


def test_with_several_objectives_the_pareto_set_comes_first() -> None:
    quality = Objective(name="eval/w2", nfe=1, mode=Mode.MAX)
    both = Objectives(by_label={"quality": quality, "cost": Objective(name="cost/training_s")})
    points = ((1.0, 5.0), (2.0, 9.0), (0.5, 7.0), (1.0, 6.0), (3.0, 10.0))
    trials = [
        replace(trial(which, 0.0), results=(number(quality), number(cost)))
        for which, (quality, cost) in enumerate(points)
    ]
    assert [one.number for one in ranked(trials, both)] == [4, 1, 0, 3, 2]


def test_a_table_of_several_objectives_says_which_trials_come_first() -> None:
    cost = Objective(name="cost/training_s")
    two = Objectives(by_label={**_SETTINGS.objectives.by_label, "cost": cost})
    text = table([], replace(_SETTINGS, objectives=two), name="toy-1")
    assert text.startswith("Sweep toy-1: eval/w2 at 1 NFE (smaller is better), cost/training_s ")
    assert text.splitlines()[0].endswith("at 95 %. Those of the Pareto set come first.")
    assert "Pareto" not in table(_TRIALS, _SETTINGS, name="toy-1")


def test_the_table_says_how_to_repeat_the_best_trial(tmp_path: Path) -> None:
    write_report(_TRIALS, _SETTINGS, name="toy-1", folder=tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "onestep train method=mean_flow x=0.3 'name='\"'\"'two words'\"'\"''" in text
    assert "1 (0.5 to 1.25)" in text
    assert "TrainingDiverged: loss/online is nan" in text
    kept = json.loads((tmp_path / "trials.json").read_text())
    found = [[each["value"] for each in one["results"]] for one in kept]
    assert found == [[2.0], [], [0.5], [1.0]]


def test_the_table_has_a_column_for_each_key_that_some_trial_has() -> None:
    other = replace(_TRIALS[0], number=4, values={"x": 0.5, "beta": "a|b"})
    _, _, head, _, *rows = table((*_TRIALS, other), _SETTINGS, name="toy-1").splitlines()[:9]
    cells = [[one.strip() for one in row.split(" | ")] for row in (head, *rows)]
    assert cells[0][1:4] == ["x", "optimizer", "beta"]
    assert {len(row) for row in cells} == {7}
    by_trial = {row[0].removeprefix("| "): row for row in cells[1:]}
    assert by_trial["4"][1:4] == ["0.5", "-", "a\\|b"]
    assert by_trial["3"][1:4] == ["0.4", "adam", "-"]


def test_a_table_says_when_no_trial_ran_whole() -> None:
    text = table(_TRIALS, _SETTINGS, name="toy-1")
    assert "The best trial, again:" in text
    text = table(_TRIALS[1:3], _SETTINGS, name="toy-1")
    assert "No trial ran whole. The best of those that were stopped, again:" in text
    assert "The best trial" not in text


def test_a_table_without_a_measured_trial_repeats_none() -> None:
    assert "onestep train" not in table(_TRIALS[1:2], _SETTINGS, name="toy-1")


def test_a_sweep_without_a_measured_trial_is_an_error(tmp_path: Path) -> None:
    failed = (trial(0, None, Outcome.FAILED),)
    said = r"all 1 trials of sweep toy-1 failed.*TrainingDiverged.*begin a new sweep, without"
    with pytest.raises(ValueError, match=said):
        result_of_sweep(failed, _SETTINGS, study_name="toy-1", storage="", folder=tmp_path)


def test_each_end_of_a_trial_has_its_line() -> None:
    back = {"step": 40, "to": 20, "lr_factor": 0.5, "why": "loss/online is nan"}
    trials = (*_TRIALS[:-1], replace(_TRIALS[-1], returns=(back,)))
    said = [line_of(one, _SETTINGS).splitlines()[0] for one in trials]
    assert said == [
        "trial 0: eval/w2 at 1 NFE 2 (1.5 to 2.25)",
        "trial 1: failed: TrainingDiverged: loss/online is nan",
        "trial 2: eval/w2 at 1 NFE 0.5 (0 to 0.75), stopped by asha at 1000 samples",
        "trial 3: eval/w2 at 1 NFE 1 (0.5 to 1.25), went back from step 40 to 20, learning rate "
        "times 0.5: loss/online is nan",
    ]
