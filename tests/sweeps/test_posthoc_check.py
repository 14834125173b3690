"""Settings that the trained map cannot take are refused before there is one."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from onestep.platform.training.assembly import Assembly, assemble
from onestep.sweeps.objective import Objective, Objectives
from onestep.sweeps.posthoc import PostHoc, Timing
from onestep.sweeps.posthoc_check import check_posthoc
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.trial import experiment_of

_SMALL: Final = ("data=eight_gaussians", "net=mlp", "net.width=16", "training.samples=2048")
_MEAN_FLOW: Final = (*_SMALL, "method=mean_flow", "training.ema_snapshots=4")
_VELOCITY: Final = (*_SMALL, "method=flow_matching")
_GUIDED: Final = (
    "data=digits",
    "net=mlp_digits",
    "net.width=16",
    "+net.guided=true",
    "method=improved_mean_flow",
    "method.guidance.highest=4.0",
    "training.samples=2048",
)
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=(),
    space=Space.from_dict({"optimizer.lr": {"kind": "uniform", "low": 0.1, "high": 0.2}}),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=2)}),
)


@functools.cache
def trial(*overrides: str) -> Assembly:
    return assemble(experiment_of(overrides))


def settings(space: Mapping[str, Any], **changes: Any) -> SweepSettings:
    return replace(_SETTINGS, posthoc=PostHoc.from_dict({"space": space, **changes}))


def between(low: float, high: float) -> dict[str, Any]:
    return {"kind": "uniform", "low": low, "high": high}


def one_of(*values: Any) -> dict[str, Any]:
    return {"kind": "choice", "values": list(values)}


_TIME: Final = {"sampler.grid.inner": between(0.1, 0.9)}
_WIDTH: Final = {"ema.width": between(0.05, 0.2)}


@pytest.mark.parametrize(
    ("overrides", "space", "more", "message"),
    [
        (_MEAN_FLOW, {"method.weighting.power": between(0, 1)}, {}, "belongs in sweep.space"),
        (_MEAN_FLOW, {"evaluation.nfes": one_of(1, 2)}, {}, "cannot hold evaluation.nfes"),
        (_VELOCITY, _WIDTH, {}, "keeps none: add training.ema_snapshots=16"),
        (_MEAN_FLOW, {"ema.width": between(0.1, 0.3)}, {}, r"reaches 0.3: .* in \(0, 0.25\]"),
        (_MEAN_FLOW, {"training.ema_served": one_of(0, 2)}, {}, "reaches 2: .* below 2, got 2"),
        (
            _MEAN_FLOW,
            _WIDTH | {"training.ema_served": one_of(0, 1)},
            {},
            "no effect beside ema.width",
        ),
        (_MEAN_FLOW, {"evaluation.guidance": one_of(1.0, 2.0)}, {}, "reaches 2.0: .* draws none"),
        (_GUIDED, {"evaluation.guidance": one_of(1.0, 5.0)}, {}, "reaches 5.0: .* 1 to 4, got 5"),
        (_VELOCITY, _TIME, {"base": ["sampler=jumps"]}, "need a map trained from 0 to 0.1"),
        (_VELOCITY, _TIME, {"base": ["sampler=renoise"]}, "Renoise needs a map trained to jump"),
        (_MEAN_FLOW, _TIME, {}, r"sampler.grid.inner\] reaches 0.1: "),
        (
            _MEAN_FLOW,
            {"sampler.grid.inner": between(0.0, 0.9)},
            {"base": ["sampler=jumps"]},
            "reaches 0.0: .*strictly inside",
        ),
        (
            _MEAN_FLOW,
            {f"sampler.grid.inner.{k}": between(0.1 * k, 0.1 * k + 0.2) for k in (1, 4)},
            {"base": ["sampler=jumps"]},
            "takes 3 network evaluations, and no objective is taken there, only at 2",
        ),
        (_MEAN_FLOW, {"sampler": one_of(None, "nothing")}, {}, "there is no sampler/nothing"),
        (
            _MEAN_FLOW,
            _TIME | {"sampler": one_of(None, "jumps")},
            {},
            "sampler.grid.inner has no effect where sampler is null",
        ),
        (_MEAN_FLOW, _WIDTH, {"base": ["net.width=2"]}, "base takes overrides of sampler"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_sentence(
    overrides: tuple[str, ...], space: Mapping[str, Any], more: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^sweep\.posthoc.*{message}") as found:
        check_posthoc(settings(space, **more), [trial(*overrides)])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("overrides", "space", "more"),
    [
        (_MEAN_FLOW, _WIDTH | _TIME, {"base": ["sampler=jumps"]}),
        (_MEAN_FLOW, {"sampler": one_of(None, "jumps", "gamma")}, {}),
        (_MEAN_FLOW, {"training.ema_served": one_of(0, 1)}, {}),
        (_GUIDED, {"evaluation.guidance": between(1.0, 4.0)}, {}),
    ],
)
def test_settings_that_a_map_takes_are_taken(
    overrides: tuple[str, ...], space: Mapping[str, Any], more: Mapping[str, Any]
) -> None:
    check_posthoc(settings(space, **more), [trial(*overrides)])


def test_one_of_several_maps_that_cannot_take_a_setting_is_enough() -> None:
    wanted = settings(_TIME, base=["sampler=jumps"])
    with pytest.raises(ValueError, match=r"need a map trained from 0 to 0.1"):
        check_posthoc(wanted, [trial(*_MEAN_FLOW), trial(*_VELOCITY)])


def test_a_key_cannot_be_trained_with_and_tried_afterwards() -> None:
    twice = Space.from_dict({"training.ema_served": one_of(0, 1)})
    wanted = replace(settings({"training.ema_served": one_of(0, 1)}), space=twice)
    with pytest.raises(ValueError, match=r"stands both in sweep\.space and in sweep\.posthoc"):
        check_posthoc(wanted, [trial(*_MEAN_FLOW)])


def test_settings_are_not_chosen_by_what_the_training_cost() -> None:
    cost = Objectives(by_label={"cost": Objective(name="cost/training_s")})
    wanted = replace(settings(_WIDTH), objectives=cost)
    with pytest.raises(ValueError, match=r"by the first objective, .* got cost/training_s"):
        check_posthoc(wanted, [trial(*_MEAN_FLOW)])


def test_a_latency_that_is_not_measured_is_no_objective() -> None:
    latency = Objectives(by_label={"fast": Objective(name="latency/sample_ms", nfe=1)})
    wanted = replace(_SETTINGS, objectives=latency, latency=Timing(repeats=0))
    with pytest.raises(ValueError, match=r"objectives\.fast is a latency, which .*repeats=0"):
        check_posthoc(wanted, [trial(*_MEAN_FLOW)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 3}, "must be null or settings with a space"),
        ({"space": _TIME, "trials": 0}, "trials must be at least 1, got 0"),
        ({"space": _TIME, "sampler": "nsga2"}, "must be one of qmc, random, grid, tpe, gp"),
        ({"space": {"ema.width": one_of(1)}}, r"\.space\[ema.width\]: a choice needs at least two"),
        (
            {"space": {"a": {"kind": "schedule", "shapes": ["constant"], "value": between(0, 1)}}},
            "cannot hold schedules, .* got a",
        ),
    ],
)
def test_settings_of_another_form_are_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^sweep\.posthoc.*{message}"):
        PostHoc.from_dict(values)


@pytest.mark.parametrize("repeats", [-1, 5])
def test_a_timing_has_enough_repeats_for_an_interval_or_none(repeats: int) -> None:
    assert Timing(repeats=0).repeats == 0
    with pytest.raises(ValueError, match=f"repeats 0 or at least 6, got 1 and {repeats}"):
        Timing(repeats=repeats)
