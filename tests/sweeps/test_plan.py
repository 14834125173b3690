from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import ray

from onestep.sweeps.plan import Plan
from onestep.sweeps.record import command_line
from onestep.sweeps.search import sweep
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.space import Space

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


_POWER: Final = {"method.weighting.power": {"kind": "uniform", "low": 0.0, "high": 1.0}}


def test_a_plan_gives_each_trial_the_same_threads_wherever_it_is_repeated() -> None:
    plan = Plan.of(small())
    assert plan.base[-1] == "training.threads=1"
    assert plan.example[-2:] == (
        "method.times.diagonal.end=0.25",
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
            over({"evaluation.seed": {"kind": "integer", "low": 1, "high": 3}}),
            "cannot hold evaluation.seed",
        ),
        (over({"+x": _POWER["method.weighting.power"]}), r"cannot hold \+x"),
        (over(_POWER, "method.weighting.power=0.5"), "stands both in sweep.space and"),
        (over(_POWER, "training.batch_size=0"), "training.batch_size must be at least 1"),
        (over(_POWER, "workers.num_workers=2"), "a trial trains in one process"),
        (over(_POWER, "workers.ray=true"), "a trial trains in one process"),
        (
            over(_POWER, "sweep.concurrency=1000"),
            r"at most the \d+ CPUs of this machine, got 1000 x 1",
        ),
        (
            over(_POWER, "sweep.scheduler.kind=asha", "sweep.scheduler.grace_samples=4096"),
            "grace_samples must be below the 2048 samples of a trial",
        ),
        (over(_POWER, "sweep.metric.nfe=3"), r"one of evaluation.nfes, \[1, 2, 4, 8\], got 3"),
        (over(_POWER, "sweep.metric.nfe=null"), "sweep.metric.nfe must be null for"),
        (over(_POWER, "sweep.metric.name=eval/straightness"), "sweep.metric.nfe must be null for"),
        (over(_POWER, "sweep.metric.name=eval/fidd"), "sweep.metric.name must be one of .*eval/w2"),
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray, "init", _never)
    with pytest.raises(ValueError, match=said):
        sweep(settings())
    assert not (tmp_path / "sweeps").exists()


def _never(*args: object, **kwargs: object) -> None:
    raise AssertionError("Ray was started")
