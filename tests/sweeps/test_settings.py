import json
from dataclasses import replace
from typing import Any

import pytest

from onestep.sweeps.settings import SweepSettings, settings_of


@pytest.fixture(scope="module")
def settings() -> SweepSettings:
    return settings_of([])


def test_the_default_sweep_is_one_curriculum_and_one_loss_weight(settings: SweepSettings) -> None:
    assert settings.name == "mean_flow_curriculum"
    assert set(settings.space.dimensions) == {
        "method.times.diagonal.end",
        "method.weighting.power",
    }


def test_settings_survive_json(settings: SweepSettings) -> None:
    assert SweepSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_overrides_that_are_not_of_the_sweep_join_those_of_every_trial() -> None:
    settings = settings_of(["sweep.trials=3", "data=moons", "training.samples=5000"])
    assert settings.trials == 3
    assert settings.base[-2:] == ("data=moons", "training.samples=5000")
    assert "data=digits" not in settings.base
    assert "training.samples=100000" not in settings.base


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sweep=nothing"], "nothing"),
        (["sweep.trails=3"], "trails"),
        (["sweep.trials=0"], "trials, concurrency and startup must be at least 1"),
        (["sweep.seed=-1"], "seed at least 0"),
        (["sweep.metric.mode=least"], "must be min or max, got 'least'"),
        (["sweep.scheduler.kind=hyperband"], "one of none, asha, got 'hyperband'"),
        (["sweep.scheduler.reduction=1"], "reduction at least 2"),
        (["sweep.name=../x"], "sweep.name must be"),
        (["sweep.metric=1"], "sweep.metric must be a mapping"),
    ],
)
def test_a_bad_setting_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(overrides)


def test_an_unknown_setting_is_refused_by_name(settings: SweepSettings) -> None:
    values: dict[str, Any] = settings.to_dict()
    with pytest.raises(ValueError, match=r"sweep has no setting trails, allowed: name, base"):
        SweepSettings.from_dict({**values, "trails": 3})
    del values["space"]
    with pytest.raises(ValueError, match="sweep lacks space"):
        SweepSettings.from_dict(values)


def test_the_number_of_trials_can_be_replaced(settings: SweepSettings) -> None:
    assert replace(settings, trials=40).trials == 40
