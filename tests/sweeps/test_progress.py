from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from onestep.sweeps.book import Book
from onestep.sweeps.cost import Budget, Cost
from onestep.sweeps.losses import add_loss
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.progress import Progress, duration
from onestep.sweeps.record import RESULTS, RUNG, SAMPLES, folder_of_trial
from onestep.sweeps.searcher import NUMBER
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.trial import LOSS

_SETTINGS = SweepSettings(
    name="toy",
    base=(),
    space=Space.from_dict({"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1)}),
    trials=6,
    concurrency=2,
)


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sweep:
    """A sweep whose trials do what a test says, and what is shown of it."""

    def __init__(
        self,
        folder: Path,
        settings: SweepSettings = _SETTINGS,
        budgets: tuple[int, ...] = (1000,),
    ) -> None:
        self.study = optuna.create_study(study_name="toy-1")
        self.book = Book(self.study, settings, base=(), budgets=budgets, folder=folder)
        self.clock, self.shown = Clock(), list[list[str]]()
        self.progress = Progress(
            self.study,
            settings,
            budgets=budgets,
            folder=folder,
            show=lambda lines: self.shown.append(list(lines)),
            clock=self.clock,
        )

    def start(self) -> Any:
        suggestion = self.book.suggest()
        assert suggestion is not None
        trial = SimpleNamespace(config={NUMBER: suggestion.number, RUNG: suggestion.rung})
        self.progress.on_trial_start(0, [], trial)
        return trial

    def end(self, trial: Any, value: float, wall_s: float, samples: int = 0) -> None:
        number = Number(value=value, low=value - 1.0, high=value + 1.0)
        cost = Cost(wall_s=wall_s, samples=samples)
        self.book.end(trial.config[NUMBER], [number], samples=1000, report="", cost=cost)
        self.progress.on_trial_complete(0, [], trial)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_the_table_counts_trials_and_shows_each_that_runs(sweep: Sweep) -> None:
    first = sweep.start()
    assert sweep.shown[-1][:2] == [
        "0 of 6 trials ended, 1 running, 0 s",
        "no trial has been measured yet",
    ]
    second = sweep.start()
    sweep.clock.now = 30.0
    sweep.progress.on_trial_result(0, [], second, {SAMPLES: 250, LOSS: 0.125})
    sweep.progress.on_trial_result(0, [], second, {SAMPLES: 300})  # measured on its way
    sweep.end(first, 2.0, 30.0)
    counts, best, line = sweep.shown[-1]
    assert counts == "1 of 6 trials ended, 1 running, 30 s, about 1 min left"
    assert best == "best is trial 0: eval/w2 at 1 NFE 2 (1 to 3)"
    assert line.split() == ["trial", "1", "#" * 6 + "." * 14, "30%", "30", "s", "loss", "0.125"]


def test_failed_trials_are_counted_and_are_not_the_best(sweep: Sweep) -> None:
    trial = sweep.start()
    sweep.book.fail(trial.config[NUMBER], "it diverged")
    sweep.clock.now = 1.0
    sweep.progress.on_trial_error(0, [], trial)
    assert sweep.shown[-1] == [
        "1 of 6 trials ended (1 failed), 0 running, 1 s",
        "no trial has been measured yet",
    ]


def test_the_rest_takes_as_long_as_trials_took_in_the_mean(sweep: Sweep) -> None:
    assert sweep.progress.left_s is None
    sweep.end(sweep.start(), 1.0, 100.0)
    sweep.end(sweep.start(), 1.0, 300.0)
    assert sweep.progress.left_s == pytest.approx(4 * 200.0 / 2)
    sweep.start()
    sweep.clock.now = 150.0
    assert sweep.progress.left_s == pytest.approx((3 * 200.0 + 50.0) / 2)
    sweep.clock.now = 1000.0  # it takes longer than the others
    assert sweep.progress.left_s == pytest.approx(3 * 200.0 / 2)


def test_the_rest_of_a_sweep_with_rungs_takes_the_samples_that_are_expected(
    tmp_path: Path,
) -> None:
    """Four trials of 100 samples, two of 200 and one of 400, each a run of its own."""
    scheduler = Stopping(kind=StoppingKind.ASHA, grace_samples=100, reduction=2, replan=True)
    settings = replace(_SETTINGS, trials=4, concurrency=1, scheduler=scheduler)
    sweep = Sweep(tmp_path, settings, (100, 200, 400))
    assert sweep.progress.left_s is None
    sweep.end(sweep.start(), 1.0, 50.0, 100)
    assert sweep.progress.left_s == pytest.approx((400 + 400 + 400 - 100) / 2)
    sweep.end(sweep.start(), 2.0, 150.0, 100)
    assert sweep.progress.left_s == pytest.approx(400 + 400 + 400 - 200)
    trial = sweep.start()
    assert trial.config[RUNG] == 1
    sweep.progress.on_trial_result(0, [], trial, {SAMPLES: 50})
    assert sweep.progress.left_s == pytest.approx(400 + 400 + 400 - 250)
    sweep.end(trial, 1.0, 200.0, 200)
    while (suggestion := sweep.book.suggest()) is not None:
        config = {NUMBER: suggestion.number, RUNG: suggestion.rung}
        sweep.end(SimpleNamespace(config=config), 3.0, 100.0, 100)
    sweep.book.close()
    sweep.progress.on_trial_start(0, [], trial)
    sweep.progress.on_trial_complete(0, [], trial)
    assert sweep.progress.left_s == 0.0


def test_the_rest_ends_with_the_budget(tmp_path: Path) -> None:
    each, samples = 100.0, 1000
    for folder, budget, left_s in (
        ("samples", Budget(samples=3500), 2 * each),
        ("seconds", Budget(seconds=250.0), 2 * each),
        ("money", Budget(money=4.0, price_per_node_hour=36.0), 3 * each),
        ("enough", Budget(samples=100_000), 5 * each),
    ):
        settings = replace(_SETTINGS, concurrency=1, budget=budget)
        sweep = Sweep(tmp_path / folder, settings)
        sweep.end(sweep.start(), 1.0, each, samples)
        assert sweep.progress.left_s == pytest.approx(left_s), folder


def test_the_rest_of_rungs_ends_with_the_budget(tmp_path: Path) -> None:
    scheduler = Stopping(kind=StoppingKind.ASHA, grace_samples=100, reduction=2, replan=True)
    settings = replace(
        _SETTINGS, trials=4, concurrency=1, scheduler=scheduler, budget=Budget(samples=900)
    )
    sweep = Sweep(tmp_path, settings, (100, 200, 400))
    sweep.end(sweep.start(), 1.0, 50.0, 100)
    assert sweep.progress.left_s == pytest.approx((900 - 100) / 2)


def test_what_a_group_of_workers_has_written_down_is_shown(sweep: Sweep, tmp_path: Path) -> None:
    silent, telling = sweep.start(), sweep.start()
    sweep.progress.on_trial_result(0, [], telling, {SAMPLES: 100, LOSS: 3.0})
    for trial in (silent, telling):
        place = folder_of_trial(tmp_path, trial.config[NUMBER], rung=None)
        for samples in range(10, 510, 10):
            add_loss(place, samples, 0.25)
    for k, share in enumerate((0.5, 0.6, 0.7)):
        sweep.clock.now = 2.0 + 2 * k
        sweep.progress.on_step_end(0, [])
        lines = sweep.shown[-1][2:]
        assert f" {share:.0%} " in lines[0]
        assert lines[0].endswith("loss 0.25")
        assert " 10% " in lines[1]
        assert lines[1].endswith("loss 3")
        sweep.progress.on_trial_result(0, [], silent, {SAMPLES: 500, RESULTS: []})
        add_loss(folder_of_trial(tmp_path, silent.config[NUMBER], rung=None), 600 + 100 * k, 0.25)


def test_a_sweep_that_goes_on_knows_what_has_ended_before(sweep: Sweep, tmp_path: Path) -> None:
    sweep.end(sweep.start(), 1.0, 100.0)
    later = Progress(
        sweep.study,
        replace(_SETTINGS, trials=3),
        budgets=(1000,),
        folder=tmp_path,
        show=lambda lines: None,
    )
    assert later.lines[0].startswith("1 of 3 trials ended, 0 running")
    assert later.left_s == pytest.approx(2 * 100.0 / 2)


def test_while_trials_wait_at_rungs_the_best_of_the_highest_is_told(tmp_path: Path) -> None:
    scheduler = Stopping(kind=StoppingKind.ASHA, grace_samples=100, reduction=2, replan=True)
    settings = replace(_SETTINGS, trials=2, concurrency=1, scheduler=scheduler)
    sweep = Sweep(tmp_path, settings, (100, 200, 400))
    said = []
    for value in (2.0, 1.0, 3.0, 4.0):
        sweep.end(sweep.start(), value, 10.0, 100)
        said.append(sweep.progress.lines[1])
    assert said == [
        "best is trial 0, so far a run of 100 samples: eval/w2 at 1 NFE 2 (1 to 3)",
        "best is trial 1, so far a run of 100 samples: eval/w2 at 1 NFE 1 (0 to 2)",
        "best is trial 1, so far a run of 200 samples: eval/w2 at 1 NFE 3 (2 to 4)",
        "best is trial 1: eval/w2 at 1 NFE 4 (3 to 5)",
    ]


def test_it_is_shown_once_a_second_at_most(sweep: Sweep) -> None:
    for tenth in range(100, 141):
        sweep.clock.now = tenth / 10
        sweep.progress.on_step_end(0, [])
    assert len(sweep.shown) == 5
    sweep.end(sweep.start(), 1.0, 10.0)
    assert len(sweep.shown) == 5
    sweep.clock.now = 15.0
    sweep.progress.on_step_end(0, [])
    assert sweep.shown[-1][0].startswith("1 of 6 trials ended, 0 running")


def test_times_are_said_in_units_that_fit() -> None:
    assert [duration(one) for one in (0.4, 59.0, 61.0, 3599.0, 5400.0)] == [
        "0 s",
        "59 s",
        "1 min",
        "60 min",
        "1.5 h",
    ]
