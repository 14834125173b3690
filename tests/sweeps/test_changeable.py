"""Populations that are refused before their first trial, each in one sentence."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from onestep.sweeps.command import generations_of
from onestep.sweeps.plan import Plan
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind

_SMALL: Final = (
    "sweep=mean_flow_population",
    "sweep.concurrency=1",
    "data=eight_gaussians",
    "net=mlp",
    "training.samples=2048",
    "training.batch_size=64",
)
_RATE: Final = {"kind": "log_uniform", "low": 1e-4, "high": 1e-2}


def over(space: Mapping[str, Any], *overrides: str) -> SweepSettings:
    settings = settings_of([*_SMALL, *overrides])
    return replace(settings, space=Space.from_dict(space))


def test_the_shipped_population_cuts_one_run_into_generations_and_keeps_its_clock() -> None:
    plan = Plan.of(settings_of(list(_SMALL)))
    assert plan.budgets == (320, 640, 1024, 1344, 1664, 2048)
    assert plan.experiment.training.samples == 2048
    assert generations_of(plan) == (
        "4 members of 2048 samples in 6 generations of at most 384; after each, the worst 1 go on "
        "from the best 1"
    )


def test_schedules_that_stand_apart_are_what_a_population_may_search() -> None:
    ramp = {
        "kind": "schedule",
        "shapes": ["linear", "constant"],
        "start": 0.75,
        "value": 0.5,
        "end": 0.25,
        "begin": 0.0,
        "until": {"kind": "uniform", "low": 0.3, "high": 1.0},
    }
    Plan.of(over({"method.times.diagonal": ramp}))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"net.width": {"kind": "int", "low": 8, "high": 16}}, "net.width cannot become another"),
        (
            {"training.batch_size": {"kind": "choice", "values": [32, 64]}},
            "training.batch_size cannot become another",
        ),
        ({"seed": {"kind": "int", "low": 0, "high": 9}}, "seed cannot become another"),
        (
            {"method.coupling.by_label": {"kind": "choice", "values": [True, False]}},
            "method.coupling.by_label cannot become",
        ),
        (
            {"method.times.law.std": _RATE, "optimizer.eps": _RATE},
            "optimizer.eps cannot become another",
        ),
    ],
)
def test_what_cannot_change_in_the_middle_of_a_run_is_refused_before_the_first_trial(
    space: Mapping[str, Any], said: str
) -> None:
    settings = over(space, "coupling@method.coupling=minibatch_ot")
    taken = {one.partition("=")[0] for one in settings.base} & set(space)
    base = tuple(one for one in settings.base if one.partition("=")[0] not in taken)
    with pytest.raises(ValueError, match=rf"sweep.scheduler.kind=pbt changes runs .*{said}") as it:
        Plan.of(replace(settings, base=base))
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sweep.trials=23"], "times the generations of the run, at least 2, got 23 and 4"),
        (["sweep.trials=4"], "at least 2, got 4 and 4"),
        (["sweep.sampler=tpe"], "it must be random or qmc, got tpe"),
        (["sweep.scheduler.quantile=0.6"], "quantile must be in"),
        (["sweep.scheduler.factor=1"], "factor above 1"),
        (["sweep.scheduler.kind=pb2"], "factor has no effect with sweep.scheduler.kind=pb2"),
        (["sweep.scheduler.kind=none"], "factor has no effect with sweep.scheduler.kind=none"),
    ],
)
def test_settings_that_make_no_population_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(["sweep=mean_flow_population", *overrides])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.samples=320"], "a run of 5 batches cannot be cut into 6 generations"),
        (["training.ema_snapshots=4"], "training.ema_snapshots are those of one run"),
        (["sweep.budget.samples=300"], "0 or at least the 384 of a trial, got 300"),
    ],
)
def test_runs_that_cannot_be_cut_into_generations_are_refused(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Plan.of(settings_of([*_SMALL, *overrides]))


def test_generations_end_with_whole_batches_and_the_last_with_the_run() -> None:
    stopping = Stopping(kind=StoppingKind.PB2)
    budgets = stopping.budgets(1000, batch=64, generations=4)
    assert budgets == (192, 448, 704, 960)
    assert stopping.samples_of_a_trial(budgets) == 256
    assert Stopping().samples_of_a_trial((100, 300, 900)) == 900
