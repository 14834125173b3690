import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Final

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState, create_trial

from onestep.platform.api import Model
from onestep.platform.registry.revision import code_digest, code_revision
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import assemble
from onestep.platform.training.measurement import prepare_benchmark
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import run_trial
from onestep.sweeps.cost import Budget, Cost
from onestep.sweeps.findings import DIGEST
from onestep.sweeps.losses import losses_of
from onestep.sweeps.note import SweepNote, folder_of
from onestep.sweeps.objective import OF_POINTS
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import COST, COSTS, CURVE, RUNG, UNTRIED, Outcome
from onestep.sweeps.report import SweepResult
from onestep.sweeps.search import resume, sweep_or_resume
from onestep.sweeps.settings import settings_of
from onestep.sweeps.space import Space
from onestep.sweeps.study import begin, open_storage, storage_url
from onestep.sweeps.trial import experiment_of

_SMALL: Final = (
    "data=eight_gaussians",
    "net=mlp",
    "training.samples=2048",
    "training.batch_size=64",
    "evaluation.nfes=[1]",
    "evaluation.samples=32",
    "sweep.concurrency=1",
    "sweep.trials=4",
    "training.clip_norm=0",
    "sweep.seed=3",  # the second of its trials diverges
)
_TINY: Final = (
    *_SMALL,
    "training.samples=128",
    "data.samples=2000",
    "data.held_out=400",
    "net.width=16",
    "sweep.trials=2",
)
_KILLED: Final = """
import os, signal, sys
from dataclasses import replace
from onestep.sweeps.search import sweep
from onestep.sweeps.settings import settings_of
from onestep.sweeps.space import Space

space = Space.from_dict({
    "method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0},
    "optimizer.lr": {"kind": "choice", "values": [1e-3, 1e30]},  # the second one diverges
})

def say(line):
    print(line, flush=True)
    if line.startswith("trial 1:"):
        os.kill(os.getpid(), signal.SIGKILL)

sweep(replace(settings_of(sys.argv[1:]), space=space), say=say)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "ONESTEP_ARTIFACTS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def test_a_sweep_that_is_unknown_cannot_go_on(home: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no sweep 'nothing' .* only none"):
        resume("nothing")


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_that_is_refused_for_its_data_keeps_the_counts_that_it_had(
    home: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, home / "mlflow.db")
    plan, name = Plan.of(settings_of(_TINY)), "eight_gaussians-20261122-101500-aaaa"
    folder_of(name).mkdir(parents=True)
    note = SweepNote(
        asked=plan.settings, settings=plan.settings, revision="main", code=code_digest()
    )
    note.keep(name)
    storage = open_storage(storage_url(plan.settings, home))
    begin(storage, name, plan.settings.objectives).set_user_attr(DIGEST, 64 * "0")
    with pytest.raises(ValueError, match="was begun on other data: their digest is 000000000000"):
        resume(name, trials=9)
    assert SweepNote.of(name) == note


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_refused_counts_that_it_has_exceeded_and_keeps_those_that_it_had(
    home: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, home / "mlflow.db")
    asked = settings_of([*_TINY, "sweep.name=mine"])
    plan, name = Plan.of(asked), "mine-20261122-101500-aaaa"
    folder_of(name).mkdir(parents=True)
    note = SweepNote(asked=asked, settings=plan.settings, revision="main", code=code_digest())
    note.keep(name)
    study = begin(open_storage(storage_url(plan.settings, home)), name, plan.settings.objectives)
    for notes in (
        {COST: asdict(Cost(samples=128))},
        {COST: asdict(Cost(samples=128))},
        {UNTRIED: ""},
    ):
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=notes))
    with pytest.raises(ValueError, match=r"trials must be at least the 2 that have begun, got 1$"):
        resume(name, trials=1)
    budget = Budget(samples=255)
    with pytest.raises(ValueError, match=r"samples must be 0 or at least the 256 .* got 255$"):
        sweep_or_resume(replace(asked, budget=budget))
    assert SweepNote.of(name) == note


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_goes_on_past_a_trial_that_its_guardian_stops_and_its_best_one_repeats_bit_by_bit(
    home: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, home / "mlflow.db")
    space = Space.from_dict(
        {
            "method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0},
            "optimizer.lr": {"kind": "choice", "values": [1e-3, 1e30]},  # the second one diverges
        }
    )
    words = [*_TINY, "training.samples=1024", "guardian.every=128"]
    settings = replace(settings_of(words), space=space, wandb=True)
    shown: list[Sequence[str]] = []
    result = sweep_or_resume(settings, show=shown.append)
    finished, failed = result.trials
    assert [one.outcome for one in result.trials] == [Outcome.FINISHED, Outcome.FAILED]
    assert failed.values["optimizer.lr"] == 1e30
    assert failed.reason.startswith("TrainingLost: the run is lost after 128 samples: guardian/")
    assert (result.best_value, result.best_overrides) == (
        finished.results[0].value,
        finished.overrides,
    )
    assert repeated(result, home / "again") == result.best_value
    assert failed.reason in (result.folder / "table.md").read_text()
    page = (result.folder / "report.html").read_text()
    assert escape(finished.command) in page
    assert escape(failed.reason) in page.replace("<wbr>", "")
    assert "registry promote eight_gaussians/1" in page
    assert "Samples of the leading trials" in page
    assert any(one[0].startswith("0 of 2 trials ended, 1 running") for one in shown)
    assert shown[-1][0].startswith("2 of 2 trials ended (1 failed), 0 running")
    assert losses_of(result.folder / "trials" / "0")[-1][0] == 1024
    check_wandb(home, result)
    assert result.model == "eight_gaussians/1"
    runs = runs_of(home)
    assert {name: run.info.status for name, run in runs.items()} == {
        result.study_name: "FINISHED",
        f"{result.study_name}-0": "FINISHED",
        f"{result.study_name}-1": "FAILED",
    }
    told = runs[f"{result.study_name}-1"].data.tags["onestep.outcome"]
    assert told == f"failed: {failed.reason}"
    parent = runs[result.study_name].info.run_id
    kept = MlflowClient(f"sqlite:///{home / 'mlflow.db'}").list_artifacts(parent)
    assert {"report.html", "table.md", "ledger.json"} <= {one.path for one in kept}
    champion = Registry(f"sqlite:///{home / 'mlflow.db'}").entry("eight_gaussians/1")
    assert champion.record.revision == finished.revisions[0] == code_revision()
    assert champion.run_id == runs[f"{result.study_name}-0"].info.run_id
    assert champion.record.sweep == f"{result.study_name}, trial 0"
    # The same command finds that nothing is left to do, with other counts, too.
    assert sweep_or_resume(replace(settings, retries=9)) == result
    assert SweepNote.of(result.study_name).settings.retries == 9
    assert [one.name for one in (home / "sweeps").iterdir()] == [result.study_name]


def check_wandb(home: Path, result: SweepResult) -> None:
    """Each trial has a run of its own in the group of its sweep, with loss and objectives."""
    for number, names in ((0, (b"loss/online", b"sweep/quality")), (1, ())):
        run = f"{result.study_name}-{number}"
        (file,) = home.glob(f"wandb/wandb/offline-run-*-{run}/*.wandb")
        content = file.read_bytes()
        # The group has the name of the sweep, with which that of the run begins, too.
        assert content.replace(run.encode(), b"").count(result.study_name.encode()) >= 1
        assert all(name in content for name in names)


def repeated(result: SweepResult, folder: Path) -> float:
    """The metric of the best trial, trained again from its overrides alone."""
    experiment = experiment_of(result.best_overrides)
    benchmark = prepare_benchmark(experiment, assemble(experiment).source.load())
    report = run_trial(experiment, MemoryReporter(), folder=folder, benchmark=benchmark)
    return report.find(OF_POINTS, nfe=1).value


def runs_of(home: Path) -> dict[str, Run]:
    """The MLflow runs of a sweep and of its trials by name."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (group,) = (one for one in client.search_experiments() if one.name == "eight_gaussians")
    runs = client.search_runs([group.experiment_id])
    return {one.info.run_name: one for one in runs}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_planned_on_its_rung_is_measured_at_its_end_alone(
    home: Path, empty_database: Path
) -> None:
    """A checkpoint where lower rungs end is none of a run that was planned on their samples."""
    shutil.copy(empty_database, home / "mlflow.db")
    words = [*_TINY, "training.samples=1024", "training.checkpoint_every=256", "sweep.trials=3"]
    rule = "sweep.scheduler={kind:hyperband,grace_samples:256,reduction:2,replan:true}"
    settings = settings_of([*words, "sweep.sampler=random", rule])
    sweep_or_resume(settings)
    study = open_storage(storage_url(settings, home)).get_all_studies()[0].study_name
    trials = optuna.load_study(study_name=study, storage=storage_url(settings, home)).trials
    begun_at = [min(map(int, one.user_attrs[COSTS])) for one in trials]
    assert sorted(begun_at) == [0, 1, 2]
    for first, trial in zip(begun_at, trials, strict=True):
        last = trial.user_attrs[RUNG]
        rungs = (256, 512, 1024)[first : last + 1]
        noted = [*map(int, trial.user_attrs.get(CURVE, {}))]
        assert noted == [samples for samples in rungs if samples < 1024]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_killed_sweep_goes_on_past_a_diverged_trial_without_losing_or_repeating_one(
    home: Path,
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *_SMALL], capture_output=True, text=True, cwd=home
    )
    assert killed.returncode == -9, killed.stderr
    (folder,) = (home / "sweeps").iterdir()
    storage = f"sqlite:///{home / 'optuna.db'}"
    before = optuna.load_study(study_name=folder.name, storage=storage)
    finished = before.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    cut_off = before.get_trials(states=(TrialState.RUNNING,))
    assert [trial.state for trial in finished] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert finished[1].user_attrs["error"].startswith("TrainingDiverged: loss/")

    result = resume(folder.name)
    after = optuna.load_study(study_name=folder.name, storage=storage)
    assert after.get_trials()[: len(finished)] == finished
    assert len(result.trials) == 4
    for one in result.trials:
        diverges = one.values["optimizer.lr"] == 1e30
        assert one.outcome is (Outcome.FAILED if diverges else Outcome.FINISHED)
    points = [one.values for one in result.trials]
    assert all(points.count(point) == 1 for point in points)
    assert all(result.trials[one.number].values == one.params for one in cut_off)
    assert result.model == "eight_gaussians/1"
    assert result.best_value == min(one.results[0].value for one in result.trials if one.results)
    assert (folder / "table.md").exists()

    assert repeated(result, home / "again") == result.best_value
    runs = runs_of(home).values()
    (parent,) = (one for one in runs if one.info.run_name == folder.name)
    children = [one for one in runs if "mlflow.parentRunId" in one.data.tags]
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    names = {f"{folder.name}-{one.number}" for one in result.trials}
    assert sorted(one.info.run_name for one in children) == sorted(names)
    assert {one.info.status for one in children} == {"FINISHED", "FAILED"}
    whole = {one.number for one in result.trials if one.outcome is Outcome.FINISHED}
    assert {int(file.parent.name) for file in folder.glob("trials/*/report.json")} == whole


_KILLED_AFTER_TRAINING: Final = """
import os, signal, sys
from onestep.sweeps.book import Book
from onestep.sweeps.search import sweep
from onestep.sweeps.settings import settings_of

write = Book.tried

def write_and_die(self, number, one):
    write(self, number, one)
    if (number, one.place) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)

Book.tried = write_and_die
sweep(settings_of(sys.argv[1:]))
"""
_POSTHOC: Final = (
    "sweep=few_steps_posthoc",
    "data.samples=2000",
    "data.held_out=400",
    "training.samples=40960",
    "evaluation.samples=100",
    "evaluation.nfes=[1,2]",
    "sweep.concurrency=1",
    "sweep.trials=2",
    "sweep.posthoc.trials=3",
    "sweep.objectives.quality.name=eval/w2",
    # It stays where it began, so that it is not the way of the training that is chosen.
    "training.ema_half_lives=[1.0e9]",
    "training.ema_ramp=1.0e6",
)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_settings_tried_before_a_kill_are_not_tried_again_and_the_winner_carries_its_own(
    home: Path,
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_AFTER_TRAINING, *_POSTHOC],
        capture_output=True,
        text=True,
        cwd=home,
    )
    assert killed.returncode == -9, killed.stderr
    (folder,) = (home / "sweeps").iterdir()
    storage = f"sqlite:///{home / 'optuna.db'}"

    def tried() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name=f"{folder.name}-posthoc", storage=storage).trials

    before = tried()
    assert [one.user_attrs["parent"] for one in before] == [0, 0, 0, 0, 1, 1]
    result = resume(folder.name)
    after = tried()
    assert after[: len(before)] == before
    assert [one.user_attrs["subtrial"]["place"] for one in after] == [0, 1, 2, 3] * 2
    best = result.best
    assert best.chosen
    sub = after[4 * best.number + best.chosen].user_attrs["subtrial"]
    assert best.results[0].value == sub["judged"][0]["value"] != sub["tuned"][0]["value"]
    assert best.cost.posthoc_s == pytest.approx(
        sum(one.user_attrs["subtrial"]["seconds"] for one in after[4 * best.number :][:4])
    )
    entry = Registry(f"sqlite:///{home / 'mlflow.db'}").entry("eight_gaussians/1")
    assert entry.record.ema == f"relative width {best.posthoc['ema.width']:g}"
    assert entry.record.sampler is not None
    assert entry.record.sampler["grid"]["inner"] == [best.posthoc["sampler.grid.inner"]]
    again = Model.load("eight_gaussians/1").evaluate(nfes=[1, 2], samples=100)
    assert again.find("eval/w2", nfe=2).value == best.results[0].value
    run = runs_of(home)[f"{folder.name}-{best.number}"]
    assert run.data.tags["onestep.posthoc"] == best.said
    assert "posthoc/quality/judged" in run.data.metrics


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "workers",
    [
        ["workers.cpus_per_worker=1.3"],
        ["workers.cpus_per_worker=0.65", "workers.num_workers=2"],
    ],
)
def test_trials_that_take_a_part_of_a_cpu_do_not_wait_for_ever(
    workers: list[str], home: Path
) -> None:
    words = ("sweep", *_TINY, *workers, "sweep.trials=1", "training.samples=1024")
    done = subprocess.run(
        [sys.executable, "-m", "onestep.platform.cli", *words],
        capture_output=True,
        text=True,
        cwd=home,
        timeout=300.0,
    )
    assert done.returncode == 0, done.stderr


_SECRET: Final = "hunter2"
_WITH_A_SECRET: Final = """
import sys
from onestep.platform.cli import main

sys.exit(main(["sweep", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_keeps_the_passwords_of_its_stores_in_one_file_of_its_owner(home: Path) -> None:
    # SQLite passes over what it does not know in a URI.
    mlflow, study = (
        f"sqlite:///file:{home / name}?uri=true&password={_SECRET}"
        for name in ("mlflow.db", "optuna.db")
    )
    words = [*_SMALL, f"storage.tracking_uri='{mlflow}'", f"sweep.storage='{study}'"]
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_SECRET, *words, "sweep.trials=2"],
        capture_output=True,
        text=True,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    assert _SECRET not in done.stdout + done.stderr
    assert "storage.tracking_uri=" in done.stdout
    holding = [
        path for path in home.rglob("*") if path.is_file() and _SECRET.encode() in path.read_bytes()
    ]
    (folder,) = (home / "sweeps").iterdir()
    assert holding == [folder / "sweep.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert _SECRET.encode() not in b"".join(path.name.encode() for path in home.rglob("*"))
