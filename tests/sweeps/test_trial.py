"""A trial as Ray Tune calls it, in this process: what it tells of itself at its end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from onestep.platform.training.assembly import assemble
from onestep.platform.training.ray_train import WORKER_BEGUN, WORKER_S
from onestep.sweeps.objective import Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.posthoc import Timing
from onestep.sweeps.record import (
    COST,
    ERROR,
    OVERRIDES,
    RESULTS,
    RETURNS,
    RUNG,
    SAMPLES,
    WENT_BACK,
    cost_until_checkpoint,
    folder_of_trial,
)
from onestep.sweeps.rungs import curve_of
from onestep.sweeps.searcher import BEGINNING, NUMBER, SPAN, BookScheduler
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stepped import Row
from onestep.sweeps.stopping import Stopping
from onestep.sweeps.trial import TuneReporter, try_overrides
from onestep.tests.sweeps.booking import SETTINGS, new_storage, open_book, suggested

_BATCH: Final = 32
_TIMES: Final = 65536.0
_PLAIN: Final = (
    "method=mean_flow",
    "data=eight_gaussians",
    "data.samples=500",
    "data.held_out=80",
    "net=mlp",
    "net.width=8",
    f"training.samples={12 * _BATCH}",
    f"training.batch_size={_BATCH}",
    f"training.checkpoint_every={4 * _BATCH}",
    "training.threads=1",
    "evaluation.nfes=[1]",
    "evaluation.samples=64",
)
_BASE: Final = (
    *_PLAIN,
    # Far too high from the seventh step on, until the guardian has sent the run back once.
    "~learning_rate",
    "+learning_rate={_target_:onestep.methods.core.schedule.Piecewise,"
    f"values:[1.0,{_TIMES}],boundaries:[0.5]}}",
    f"guardian.every={_BATCH}",
    "guardian.retries=1",
    f"guardian.lr_factor={1 / _TIMES}",
)

_SETTINGS: Final = SweepSettings(
    name="toy",
    base=_BASE,
    space=Space.from_dict({"optimizer.lr": {"kind": "uniform", "low": 0.01, "high": 0.02}}),
    objectives=Objectives.from_dict({"quality": {"name": "eval/w2", "nfe": 1}}),
)


def test_a_trial_tells_how_often_its_guardian_sent_it_back_and_all_that_it_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    plan = Plan.of(_SETTINGS)
    benchmark = plan.benchmark(assemble(plan.experiment).source.load())
    rows: list[Row] = []

    def run() -> Row:
        (lr,) = plan.settings.space.overrides(plan.settings.space.first)
        config = {NUMBER: 3, OVERRIDES: [lr], RUNG: None, BEGINNING: None, SPAN: None}
        last = try_overrides(
            config,
            tell=rows.append,
            objectives=plan.settings.objectives.to_dict(),
            budgets=(),
            last_rung=0,
            folder=str(tmp_path),
            base=plan.base,
            benchmark=benchmark,
            environment={},
            wandb=False,
        )
        assert ERROR not in last
        return last

    for last in (run(), run()):  # the second one goes on from the last checkpoint
        (back,) = json.loads(last[RETURNS])
        assert back["step"] > back["to"]
        assert "loss/" in back["why"] or "lost" in back["why"]
        assert last[SAMPLES] == 12 * _BATCH
        trained = json.loads(last[COST])["samples"]
        assert trained > 12 * _BATCH
        assert trained % _BATCH == 0
    kept = cost_until_checkpoint(tmp_path, 3, rung=None)
    assert kept.samples == trained
    assert (folder_of_trial(tmp_path, 3, rung=None) / "seconds.json").exists()
    assert cost_until_checkpoint(tmp_path, 4, rung=None).samples == 0


def training_times(folder: Path) -> list[float]:
    """Seconds of the trainings of two equal trials, one after the other."""
    base = (*_PLAIN, f"training.samples={_BATCH}")
    plan = Plan.of(replace(_SETTINGS, base=base))
    benchmark = plan.benchmark(assemble(plan.experiment).source.load())
    rows = [
        try_overrides(
            {
                NUMBER: one,
                OVERRIDES: ["optimizer.lr=0.01"],
                RUNG: None,
                BEGINNING: None,
                SPAN: None,
            },
            tell=lambda row: None,
            objectives=plan.settings.objectives.to_dict(),
            budgets=(),
            last_rung=0,
            folder=str(folder),
            base=plan.base,
            benchmark=benchmark,
            environment={"ONESTEP_HOME": str(folder)},
            wandb=False,
        )
        for one in range(2)
    ]
    return [json.loads(row[COST])["training_s"] for row in rows]


def test_the_first_trial_of_a_process_is_not_charged_with_what_the_process_begins_with(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from onestep.tests.sweeps.test_trial import "
        "training_times; print(training_times(Path(sys.argv[1])))"
    )
    asked = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    first, second = json.loads(said.splitlines()[-1])
    assert first < 2.5 * second


def test_a_trial_is_measured_where_others_are_also_if_its_guardian_doubts_it_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    # Less high, so that the seventh step is doubted and the eighth is lost.
    milder = [one.replace(str(_TIMES), "128.0") for one in _BASE]
    base = (*milder, f"training.checkpoint_every={_BATCH}")
    plan = Plan.of(replace(_SETTINGS, base=base))
    rows: list[Row] = []
    last = try_overrides(
        {NUMBER: 0, OVERRIDES: ["optimizer.lr=0.01"], RUNG: None, BEGINNING: None, SPAN: None},
        tell=rows.append,
        objectives=plan.settings.objectives.to_dict(),
        budgets=(7 * _BATCH,),
        last_rung=0,
        folder=str(tmp_path),
        base=plan.base,
        benchmark=plan.benchmark(assemble(plan.experiment).source.load()),
        environment={},
        wandb=False,
    )
    told = [row for row in rows if RESULTS in row or WENT_BACK in row]
    assert [row.get(WENT_BACK) for row in told] == [None, 6 * _BATCH, None]
    assert [row.get(SAMPLES) for row in told] == [7 * _BATCH, None, 7 * _BATCH]
    (back,) = json.loads(last[RETURNS])
    assert (back["step"], back["to"]) == (8, 6)
    kept = folder_of_trial(tmp_path, 0, rung=None) / "checkpoints"
    assert [path.name for path in kept.parent.iterdir() if path.is_dir()] == [kept.name]


def test_a_state_that_a_return_has_undone_is_compared_with_no_other(
    tmp_path: Path, empty_study: Path
) -> None:
    halved = replace(SETTINGS, scheduler=Stopping(kind="asha", grace_samples=250, reduction=2))
    book = open_book(new_storage(tmp_path / "one", empty_study), tmp_path, halved)
    scheduler, trial = BookScheduler(book), SimpleNamespace(config={NUMBER: suggested(book)})

    def curve_after(**row: Any) -> dict[int, tuple[float, ...]]:
        scheduler.on_trial_result(None, trial, row)
        return curve_of(book.study.get_trials()[0])

    def measured(samples: int, value: float) -> dict[int, tuple[float, ...]]:
        return curve_after(**{RESULTS: [[value, value, value]], SAMPLES: samples, COST: "{}"})

    assert measured(250, 3.0) == {250: (-3.0,)}
    assert measured(500, 1.0) == {250: (-3.0,), 500: (-1.0,)}
    assert curve_after(**{WENT_BACK: 250}) == {250: (-3.0,)}
    assert measured(500, 5.0) == {250: (-3.0,), 500: (-5.0,)}
    assert measured(500, 7.0) == {250: (-3.0,), 500: (-5.0,)}  # again after a cut


def test_a_group_that_is_cut_off_keeps_what_it_took_up_to_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    base = (*_BASE, "workers.num_workers=2")
    plan = Plan.of(replace(_SETTINGS, base=base, concurrency=1))

    def reporter() -> TuneReporter:
        return TuneReporter(
            plan.experiment,
            plan.settings.objectives,
            plan.benchmark(assemble(plan.experiment).source.load()),
            folder=tmp_path,
            budgets=(),
            timing=Timing(),
            tell=lambda row: None,
        )

    def train(one: TuneReporter, *steps: int) -> None:
        """Hand on what the leading worker tells, which takes three seconds for a step."""
        for taken, step in enumerate(steps, 1):
            told = {WORKER_S: 3.0 * taken, WORKER_BEGUN: float(steps[0])}
            one.report({"loss/online": 1.0, **told}, step=step)

    train(reporter(), 1, 2, 3, 4, 5)  # cut off after its first checkpoint
    again = reporter()
    again.report({}, step=4, checkpoint=tmp_path / "step-4")
    assert again.training_s == 2 * 12.0
    train(again, 5, 6, 7, 8, 9)
    third = reporter()  # what the group had kept as its second checkpoint was not whole
    third.report({}, step=4, checkpoint=tmp_path / "step-4")
    assert third.training_s == 2 * (12.0 + 12.0)
    assert third.cost.samples == (4 + 4) * _BATCH
    fourth = reporter()  # nor was the first
    train(fourth, 1, 2)
    assert fourth.cost.samples == (4 + 4 + 2) * _BATCH
