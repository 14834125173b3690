import argparse
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from onestep.platform.cli import main
from onestep.sweeps.command import Sweep, changes_of, estimate_of, text_of
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Number
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import Outcome, TrialRecord
from onestep.sweeps.report import TABLE, SweepResult
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.space import Space
from onestep.sweeps.trial import experiment_of


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    Sweep().configure(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(("replan", "samples"), [("false", 4 + 2 * 1 + 2), ("true", 4 + 2 * 2 + 4)])
def test_the_estimate_of_a_dry_run_counts_who_goes_on(
    replan: str, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four trials two go on from a quarter of their samples, and one from the half."""
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    scheduler = f"sweep.scheduler={{kind:asha,grace_samples:500,reduction:2,replan:{replan}}}"
    words = ["data=moons", "net=mlp", "net.width=16", "training.samples=2048", scheduler]
    words += ["training.batch_size=64", "sweep.trials=4", "sweep.concurrency=1"]
    plan = Plan.of(
        replace(
            settings_of(words),
            space=Space.from_dict(
                {"method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0}}
            ),
        )
    )
    found = estimate_of(plan)
    each, of_all = map(float, re.findall(r"([\d.e+-]+) s ", found))
    assert plan.budgets == (512, 1024, 2048)
    assert f"{samples / 16:.0%} of their samples" in found
    assert of_all == pytest.approx(each * samples / 4, rel=0.01)


def test_the_estimate_of_a_dry_run_goes_no_further_than_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ["data=moons", "net=mlp", "training.samples=2048", "sweep.trials=32"]
    words += ["training.batch_size=64", "sweep.concurrency=1", "sweep.budget.samples=6200"]
    found = estimate_of(Plan.of(settings_of(words)))
    each, of_all = map(float, re.findall(r"([\d.e+-]+) s ", found))
    assert "32 trials, of which the budget pays for 3, 1 at once" in found
    assert of_all == pytest.approx(3 * each, rel=0.01)
    low, high = map(float, re.findall(r"([\d.e+-]+) with the", found))
    assert each == max(low, high)


def test_a_dry_run_prints_the_sweep_and_a_line_that_trains_one_trial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ("data=moons", "net=mlp", "sweep.trials=3")
    assert Sweep().run(arguments("--dry-run", *words)) == 0
    shown, _, rest = capsys.readouterr().out.partition("\none trial:\n")
    line, _, estimate = rest.partition("\n\n")
    each, of_all = map(float, re.findall(r"([\d.e+-]+) s ", estimate))
    assert "3 trials, 2 at once" in estimate
    assert "sweep.sampler=tpe learns nothing in 3 trials: the first 4 are random" in estimate
    assert of_all == pytest.approx(1.5 * each, rel=0.01)
    settings = SweepSettings.from_dict(json.loads(shown))
    assert settings.trials == 3
    assert str(settings.objectives) == "eval/w2 at 1 NFE"
    line, said = line.strip().splitlines()
    assert said.strip() == (
        "with method.times.diagonal: linear from 1 to 0.25 between 0 and 0.5, on the clock progress"
    )
    program, command, *overrides = shlex.split(line)
    assert (program, command) == ("onestep", "train")
    experiment = experiment_of(tuple(overrides))
    assert experiment.method["times"]["diagonal"]["end"] == 0.25
    assert experiment.training.threads == 1
    assert not any(tmp_path.iterdir())


def test_a_dry_run_tells_of_settings_that_are_tried_after_each_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ("sweep=improved_mean_flow_posthoc", "net=mlp_digits", "sweep.posthoc.trials=5")
    assert Sweep().run(arguments("--dry-run", *words)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "then the weights of each trial are measured in 6 settings"


def test_a_dry_run_refuses_what_a_sweep_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ("data=moons", "net=mlp", "sweep.objectives.quality.name=eval/w3")
    with pytest.raises(ValueError, match=r"quality.name must be one of .*eval/w2, .*'eval/w3'"):
        Sweep().run(arguments("--dry-run", *words))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sweep.warm_start.registry=true", "no registered model has eval/w2 at 1 NFE"),
        ("sweep.warm_start.sweeps=[earlier]", "there is no sweep 'earlier'"),
        ("parents.initial=moons/1", "there is no registered model 'moons'"),
    ],
)
def test_a_dry_run_refuses_a_start_from_what_is_not_there(
    word: str, said: str, home_folder: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        Sweep().run(arguments("--dry-run", "data=moons", "net=mlp", word))
    assert not list(home_folder.glob("sweeps/*"))


def test_a_dry_run_shows_no_password(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    uri = "postgresql+psycopg://ada:secret@host/db"
    words = ("data=moons", "net=mlp", f"sweep.storage={uri}", f"storage.tracking_uri={uri}")
    assert Sweep().run(arguments("--dry-run", *words)) == 0
    shown = capsys.readouterr().out
    assert "secret" not in shown
    assert shown.count("postgresql+psycopg://ada:***@host/db") == 3


def test_the_lines_about_a_sweep_that_ended_show_its_model_and_no_password(
    tmp_path: Path,
) -> None:
    (tmp_path / TABLE).write_text("the table\n")
    best = TrialRecord(
        number=0,
        overrides=(),
        values={},
        outcome=Outcome.FINISHED,
        results=(Number(value=1.0, low=1.0, high=1.0),),
        samples=1,
        cost=Cost(),
        reason="",
    )
    result = SweepResult(
        best=best,
        trials=(best,),
        study_name="toy-1",
        storage="postgresql+psycopg://ada:secret@host/optuna",
        folder=tmp_path,
    )
    lines = [
        "the table",
        "",
        f"the page: {tmp_path / 'report.html'}",
        "all trials: optuna-dashboard postgresql+psycopg://ada:***@host/optuna",
    ]
    assert text_of(result).splitlines() == lines
    registered = text_of(replace(result, model="digits/3")).splitlines()
    assert "registered digits/3; let an alias mean it, which is then served:" in registered
    assert '  onestep registry promote digits/3 champion --why "best of toy-1"' in registered


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume", "x", "--dry-run"], "drop --dry-run"),
        (["--resume", "x", "sweep.trials=few"], "sweep.trials must be a whole number, got 'few'"),
        (["--resume", "x", "sweep.wandb=1"], "sweep.wandb must be true or false, got '1'"),
        (["--resume", "x", "sweep.address=host:6379"], "there is no sweep 'x'"),
        (["--resume", "x", "data=moons"], "keeps its settings but sweep.trials, .*data=moons"),
        (["--resume", "x", "sweep.budget.samples=9"], "there is no sweep 'x'"),
        (["--resume", "x", "sweep.retries=9"], "there is no sweep 'x'"),
        (["--resume", "x"], "there is no sweep 'x'"),
        (["report"], "write `onestep sweep report NAME`"),
        (["report", "x", "y"], "write `onestep sweep report NAME`"),
        (["report", "x", "--dry-run"], "with one name and no option"),
        (["report", "x", "--resume", "x"], "with one name and no option"),
        (["report", "x"], "there is no sweep 'x'"),
        (["delete", "x"], "knows the words list and report NAME, .* KEY=VALUE, got 'delete'"),
        (["compare", "a", "b"], "knows the words list and report NAME, .* got 'compare'"),
        (["list", "x"], "with no other word and no option"),
        (["list", "--dry-run"], "with no other word and no option"),
    ],
)
def test_what_names_no_sweep_to_go_on_with_or_to_report_on_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=said):
        Sweep().run(arguments(*words))
    assert not any(tmp_path.iterdir())


def test_a_resumed_sweep_may_follow_its_cluster_and_keeps_what_decides_its_trials() -> None:
    words = ["sweep.trials=9", "sweep.address=10.0.0.2:6379", "sweep.wandb=true"]
    changed = {"trials": 9, "address": "10.0.0.2:6379", "wandb": True}
    assert changes_of(words, of="x") == changed
    with pytest.raises(ValueError, match=r"got 'sweep.trails=9': did you mean sweep.trials\?$"):
        changes_of(["sweep.trails=9"], of="x")
    with pytest.raises(ValueError, match=r"did you mean sweep.budget.samples\?$"):
        changes_of(["sweep.budge.samples=9"], of="x")
    with pytest.raises(ValueError, match=r"keeps its settings but .*sweep\.storage"):
        changes_of(["sweep.storage=sqlite:///other.db"], of="x")


def test_the_help_shows_all_uses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0].split()
    assert usage[:6] == ["usage:", "onestep", "sweep", "[option", "...]", "[override"]
    assert usage[-4:] == ["onestep", "sweep", "report", "NAME"]
