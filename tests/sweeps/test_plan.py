from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import ray

from onestep.platform.home import Home
from onestep.platform.registry.store import Registry
from onestep.platform.training.launch import launch
from onestep.platform.training.watcher import Silence
from onestep.sweeps.cost import Budget
from onestep.sweeps.note import SweepNote
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import command_line
from onestep.sweeps.search import resume, sweep
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.space import Space
from onestep.sweeps.trial import experiment_of

# Small enough that building it takes no time.
_SMALL: Final = (
    "data=eight_gaussians",
    "net=mlp",
    "training.samples=2048",
    "evaluation.samples=16",
)


def small(*overrides: str) -> SweepSettings:
    return settings_of([*_SMALL, *overrides])


def over(space: Mapping[str, Any], *overrides: str) -> Callable[[], SweepSettings]:
    """A small sweep over a space; it is composed when it is asked for, not for every test."""
    return lambda: replace(small(*overrides), space=Space.from_dict(space))


@pytest.fixture
def home(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which Ray must not start."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", _never)
    return home_folder


def _never(*args: object, **kwargs: object) -> None:
    raise AssertionError("Ray was started")


_UNTIL: Final = {
    "method.times.diagonal": {
        "kind": "schedule",
        "shapes": ["linear"],
        "start": 1.0,
        "end": 0.5,
        "until": {"kind": "uniform", "low": 0.25, "high": 1.0},
    }
}
_BATCH: Final = {"training.batch_size": {"kind": "int", "low": 32, "high": 64}}
_HALVED: Final = (
    "sweep.scheduler.kind=asha",
    "sweep.scheduler.grace_samples=500",
    "sweep.scheduler.reduction=2",
)
_POWER: Final = {"method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0}}

_OVER: Final = {"kind": "uniform", "low": 0.5, "high": 1.5}
_RAMP: Final = {
    "kind": "schedule",
    "shapes": ["linear"],
    "start": 1.0,
    "end": {"kind": "uniform", "low": 0.0, "high": 0.5},
}
_OPTIMIZER: Final = {"kind": "choice", "values": ["adam", "radam"]}
_RADAM: Final = {"optimizer": "radam"}


def test_a_plan_gives_each_trial_the_same_threads_wherever_it_is_repeated() -> None:
    plan = Plan.of(small())
    assert plan.base[-1] == "training.threads=1"
    assert plan.example[-3:] == (
        "~method.times.diagonal",
        "+method.times.diagonal={_target_:onestep.methods.core.schedule.Linear,"
        "start:1.0,end:0.25,begin:0.0,until:0.5,clock:progress}",
        "method.weighting.power=0.0",
    )
    assert plan.samples == 2048
    assert command_line(plan.example).startswith("onestep train method=mean_flow ")


def test_threads_that_are_asked_for_are_kept() -> None:
    base = Plan.of(over(_POWER, "training.threads=2")()).base
    assert [one for one in base if one.startswith("training.threads")] == ["training.threads=2"]


def test_halving_measures_each_trial_at_its_rungs() -> None:
    plan = Plan.of(over(_POWER, "sweep.scheduler.kind=asha", "sweep.scheduler.grace_samples=512")())
    assert plan.base[-1] == "training.checkpoint_every=512"


def test_checkpoints_between_the_rungs_are_kept_where_they_are_asked_for() -> None:
    plan = Plan.of(over(_POWER, *_HALVED, "training.checkpoint_every=256")())
    assert [one for one in plan.base if "checkpoint_every" in one] == [
        "training.checkpoint_every=256"
    ]


def test_checkpoints_that_miss_a_rung_by_a_part_of_a_batch_are_refused() -> None:
    fits = ("training.batch_size=100", "training.samples=4000", "sweep.scheduler.grace_samples=500")
    settings = over(_POWER, *_HALVED, *fits, "training.checkpoint_every=250")()
    with pytest.raises(
        ValueError, match=r"checkpoint_every must divide the 500 samples .* got 250"
    ):
        Plan.of(settings)


def without(key: str, settings: SweepSettings) -> SweepSettings:
    """The same sweep without an override of all its trials."""
    return replace(settings, base=[one for one in settings.base if not one.startswith(f"{key}=")])


def test_rungs_fit_the_batches_of_trials_without_a_key_under_a_condition_too() -> None:
    batch = {"kind": "choice", "values": [48, 96], "when": _RADAM}
    space = {"optimizer": _OPTIMIZER, "training.batch_size": batch}
    plan = Plan.of(without("training.batch_size", over(space, *_HALVED)()))
    own = experiment_of(plan.base).training.batch_size
    assert own % 48
    assert len(plan.budgets) > 1
    assert all(samples % own == samples % 96 == 0 for samples in plan.budgets[:-1])


def test_a_budget_is_one_for_the_longest_trial() -> None:
    space = {"training.samples": {"kind": "choice", "values": [1024, 4096]}}
    short = without("training.samples", over(space, "sweep.budget.samples=4095")())
    with pytest.raises(ValueError, match=r"at least the \d+ of a trial, got 4095"):
        Plan.of(short)
    fits = replace(short, budget=Budget(samples=1_000_000))
    assert Plan.of(fits).samples >= 4096


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (over({"method.weigting.power": _POWER["method.weighting.power"]}), "weigting"),
        (
            over({"method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.5}}),
            r"sweep.space\[method.weighting.power\] reaches 1.5: .*power in \[0, 1\].*got 1.5",
        ),
        (
            over({"optimizer": {"kind": "choice", "values": ["adam", "adm"]}}),
            r"sweep.space\[optimizer\] reaches 'adm'",
        ),
        (over({"data": {"kind": "choice", "values": ["moons", "spiral"]}}), "cannot hold data"),
        (
            over({"evaluation.seed": {"kind": "int", "low": 1, "high": 3}}),
            "cannot hold evaluation.seed",
        ),
        (over({"+x": _POWER["method.weighting.power"]}), r"cannot hold \+x"),
        (over(_POWER, "method.weighting.power=0.5"), "stands both in sweep.space and"),
        (
            over({"method.times.diagonal": _RAMP | {"end": _OVER}}),
            r"sweep.space\[method.times.diagonal\].end reaches 1.5: .*\[0, 1\], got 1.5",
        ),
        (
            over({"method.weighting.offset": _OVER, "method.weighting.power": _OVER}),
            r"sweep.space\[method.weighting.power\] reaches 1.5: ",
        ),
        (
            over({"optimizer": _OPTIMIZER, "method.weighting.power": _OVER | {"when": _RADAM}}),
            r"sweep.space\[method.weighting.power\] reaches 1.5: ",
        ),
        (
            over(
                {
                    "method.weighting.power": _OVER,
                    "method.weighting.offset": _OVER,
                    "constraints": ["method.weighting.power <= method.weighting.offset - 0.25"],
                }
            ),
            r"sweep.space\[method.weighting.power\] reaches 1.25: ",
        ),
        (
            over(
                {
                    "optimizer": _OPTIMIZER,
                    "method.weighting.power": _POWER["method.weighting.power"] | {"when": _RADAM},
                    "method.weighting.offset": _OVER,
                    "constraints": [
                        "method.weighting.power <= method.weighting.offset - 0.25",
                        "method.weighting.power >= method.weighting.offset",
                    ],
                }
            ),
            r"sweep.space\[optimizer\]: no point with optimizer 'radam' satisfies",
        ),
        (
            over(
                {
                    "method.weighting.power": _POWER["method.weighting.power"],
                    "method.times.diagonal": _RAMP,
                    "constraints": [
                        "method.weighting.power + method.times.diagonal.end <= 0.02",
                    ],
                }
            ),
            r"sweep.space.constraints must leave at least 0.5% of the points .* got \d of 2000",
        ),
        (over(_POWER, "++method.weighting.power=0.5"), r"\+\+method.weighting.power stands both"),
        (
            over(_POWER, *_HALVED, "training.checkpoint_every=800"),
            "training.checkpoint_every must divide the 512 samples at .*got 800",
        ),
        (
            over({"training.checkpoint_every": {"kind": "choice", "values": [512, 300]}}, *_HALVED),
            "sweep.space cannot hold training.checkpoint_every where trials are measured",
        ),
        (
            over(
                {"optimizer.lr": {"kind": "log_uniform", "low": 1e-4, "high": 1e-2}},
                "sweep.scheduler.kind=pbt",
                "sweep.sampler=random",
                "sweep.population=4",
                "sweep.trials=16",
                "sweep.budget.samples=6655",
            ),
            "sweep.budget.samples must be 0 or at least the 6656 after which a member .*got 6655",
        ),
        (over({"method.path": _RAMP}), r"\[method.path\] draws .*it has LinearPath"),
        (over({"method.weighting.power": _RAMP}), r"\[method.weighting.power\] .*it has 1.0"),
        (over({"method.tims.diagonal": _RAMP}), "tims"),
        (
            over({"method.times.diagonal": _RAMP}, "method.times.diagonal.value=0.5"),
            "method.times.diagonal.value stands both in sweep.space and",
        ),
        (
            over({"method.times.diagonal": _RAMP}, "~method.times.diagonal"),
            "~method.times.diagonal stands both in sweep.space and",
        ),
        (over(_POWER, "training.batch_size=0"), "training.batch_size must be at least 1"),
        (
            over(_POWER, "training.batch_size=2048", "data.samples=1024"),
            r"batch_size must be in \[1, .*got 2048",
        ),
        (over(_POWER, "parents.initial=digits/99"), "there is no registered model 'digits'"),
        (
            over({"parents.initial": {"kind": "choice", "values": [None, "digits@champion"]}}),
            "there is no registered model 'digits'",
        ),
        (over(_POWER, "workers.address=auto"), "workers.address has no effect without Ray Train"),
        (
            over(_POWER, "workers.num_workers=2", "workers.address=auto"),
            "workers.address has no effect on a trial: leave it out, got 'auto'",
        ),
        (
            over(_POWER, "workers.ray=true", "workers.gpus_per_worker=2"),
            "workers.gpus_per_worker is 2, but this machine has no GPU",
        ),
        (
            over(_POWER, "workers.num_workers=2", "sweep.concurrency=1000"),
            r"at most the \d+ CPUs of this machine, got 1000 x 2 x 1",
        ),
        (over(_POWER, "run=mine"), "run has no effect on a trial: leave it out, got 'mine'"),
        (over(_POWER, "name=mine"), "name has no effect on a trial: leave it out, got 'mine'"),
        (over(_POWER, "storage.wandb=true"), r"storage\.wandb has no effect on a trial"),
        (over(_POWER, "data=image_folder", "data.folder='my photos'"), "got 'my photos'"),
        (
            over(_POWER, "sweep.concurrency=1000"),
            r"at most the \d+ CPUs of this machine, got 1000 x 1",
        ),
        (
            over(_POWER, "sweep.scheduler.kind=asha", "sweep.scheduler.grace_samples=4096"),
            "no rung of at least 4096 samples fits 2 times into the 2048 samples of a whole run",
        ),
        (
            over(_UNTIL, *_HALVED),
            r"compare trials after 512 samples .* method.times.diagonal .*replan=true",
        ),
        (
            over({"training.samples": {"kind": "choice", "values": [2048, 4096]}}, *_HALVED),
            "sweep.space cannot hold training.samples where trials are stopped early",
        ),
        (
            over(_BATCH, *_HALVED),
            r"sweep.space\[training.batch_size\] must be a choice where trials are stopped",
        ),
        (over(_POWER, "sweep.budget.samples=2047"), "at least the 2048 of a trial, got 2047"),
        (
            over(_POWER, "sweep.objectives.quality.nfe=3"),
            r"one of evaluation.nfes, \[1, 2, 4, 8\], got 3",
        ),
        (over(_POWER, "sweep.objectives.quality.nfe=null"), "nfe must be null for"),
        (over(_POWER, "sweep.objectives.quality.name=eval/straightness"), "nfe must be null for"),
        (
            over(
                {"optimizer.lr": {"kind": "log_uniform", "low": 1e-4, "high": 1e-2}},
                "method=consistency_training",
                "sweep.objectives.quality.nfe=null",
                "sweep.objectives.quality.name=eval/straightness",
            ),
            "consistency_training is trained on to_data jumps and has no eval/straightness",
        ),
        (
            over(_POWER, "sweep.objectives.quality.name=eval/memorisation_rank"),
            "eval/memorisation_rank of data is neither the least nor the largest",
        ),
        (
            over(_POWER, "sweep.objectives.quality.name=eval/fidd"),
            "sweep.objectives.quality.name must be one of .*eval/w2",
        ),
        (over(_POWER, "sweep.storage=nonsense"), "a database must be named by a URL"),
        (
            over(_POWER, "sweep.storage='postgresql+nodriver://nobody:secret@127.0.0.1:1/x'"),
            "Optuna's database at postgresql.*nobody:[*]{3}@127.0.0.1:1/x does not answer",
        ),
        (over(_POWER, "storage.tracking_uri=http://127.0.0.1:9"), "MLflow store"),
    ],
)
def test_a_sweep_is_refused_before_ray_starts(
    settings: Callable[[], SweepSettings],
    said: str,
    home: Path,
) -> None:
    before = sorted(home.rglob("*"))
    with pytest.raises(ValueError, match=said):
        sweep(settings())
    assert sorted(home.rglob("*")) == before, "nothing is left half-written"


def test_a_sweep_for_gpus_needs_one_or_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked = over(_POWER, "workers.gpus_per_worker=1")
    with pytest.raises(ValueError, match=r"neither sweep\.address nor RAY_ADDRESS names a cluster"):
        Plan.of(asked())
    assert Plan.of(replace(asked(), address="auto")).experiment.workers.gpus_per_worker == 1.0
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    plan = Plan.of(asked())
    assert plan.prepare(Path("nowhere")).assembly.name == "mean_flow"  # on the CPU that is here


@pytest.mark.parametrize(
    ("workers", "each", "concurrency", "fits"),
    [
        (1, 1.0, 2, True),
        (2, 1.0, 1, True),
        (2, 0.5, 2, True),
        (3, 1.0, 1, False),
        (2, 1.0, 2, False),
        (3, 0.6, 1, False),
        (1, 1.0, 3, False),
    ],
)
def test_groups_of_workers_for_which_a_machine_has_too_few_gpus_are_refused(
    workers: int, each: float, concurrency: int, *, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked = over(
        _POWER,
        "training.shards=12",
        "training.batch_size=60",
        "workers.ray=true",
        f"workers.num_workers={workers}",
        f"workers.gpus_per_worker={each}",
        "workers.cpus_per_worker=0.1",
        f"sweep.concurrency={concurrency}",
    )
    if fits:
        Plan.of(asked())
        return
    with pytest.raises(ValueError, match=r"must find room on the GPUs of this machine, 2, got"):
        Plan.of(asked())
    Plan.of(replace(asked(), address="auto"))  # a cluster has others


@pytest.mark.slow
def test_a_promotion_does_not_part_the_trials_of_a_sweep(home: Path) -> None:
    launch(experiment_of((*_SMALL, "training.samples=256", "evaluation.nfes=[1]")), Silence())
    registry = Registry.at(Home.here())
    first = registry.load("eight_gaussians/1")
    registry.promote("eight_gaussians/1", "champion", why="the only one")
    champion = "eight_gaussians@champion"
    with pytest.raises(AssertionError, match="Ray was started"):
        sweep(over(_POWER, f"parents.initial={champion}")())
    (folder,) = (home / "sweeps").iterdir()
    registry.register(
        first.record, first.weights, run_id=registry.entry("eight_gaussians/1").run_id
    )
    registry.promote("eight_gaussians/2", "champion", why="another one")
    with pytest.raises(AssertionError, match="Ray was started"):
        resume(folder.name)
    kept = SweepNote.of(folder.name).settings
    assert "parents.initial=eight_gaussians/1" in Plan.of(kept).example
    assert champion not in str(kept)
    assert f"parents.initial={champion}" in SweepNote.of(folder.name).asked.base

    swept = over({"parents.initial": {"kind": "choice", "values": [None, champion]}})
    plan = Plan.of(swept()).with_versions(registry)
    values = plan.settings.space.dimensions["parents.initial"].values
    assert values == (None, "eight_gaussians/2")
