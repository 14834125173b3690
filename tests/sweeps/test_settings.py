import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from onestep.platform.configuration import compose
from onestep.platform.evaluation.benchmark import METRICS, metric_names
from onestep.platform.training.assembly import assemble
from onestep.sweeps.objective import BETWEEN, LARGER, Mode, Objectives
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.space import Space
from onestep.sweeps.trial import experiment_of


def test_the_numbers_whose_better_values_are_known_are_those_of_the_evaluation() -> None:
    assert {name for metric in METRICS for name in metric.names} >= LARGER | BETWEEN


def test_larger_shares_are_better_unless_another_mode_is_asked_for() -> None:
    named = "sweep.objectives.quality.name=eval/coverage"
    assert settings_of([named]).objectives.lead.mode is Mode.MAX
    asked = settings_of([named, "sweep.objectives.quality.mode=min"])
    assert asked.objectives.lead.mode is Mode.MIN
    assert settings_of([]).objectives.lead.mode is Mode.MIN


@pytest.fixture(scope="module")
def settings() -> SweepSettings:
    return settings_of([])


def test_the_default_sweep_is_one_curriculum_and_one_loss_weight(settings: SweepSettings) -> None:
    assert settings.name == "mean_flow_curriculum"
    assert set(settings.space.dimensions) == {
        "method.times.diagonal.end",
        "method.weighting.power",
    }


def test_everything_that_a_sweep_may_leave_out_is_a_key_of_the_command_line() -> None:
    optional = {one.name for one in fields(SweepSettings) if one.default is not MISSING}
    shared = compose("sweep", ["~sweep"], module="onestep.sweeps.conf")["sweep"]
    assert set(shared) == optional | {"objectives"}


def test_what_a_sweep_may_leave_out_is_the_same_in_the_file_and_in_the_classes(
    settings: SweepSettings,
) -> None:
    shared = compose("sweep", ["~sweep"], module="onestep.sweeps.conf")["sweep"]
    fresh = SweepSettings(
        name="toy", base=(), space=settings.space, objectives=settings.objectives
    ).to_dict()
    assert {key: fresh[key] for key in shared if key != "objectives"} == {
        key: value for key, value in shared.items() if key != "objectives"
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
        (
            ["sweep=few_steps_posthoc", "sweep.scheduler.kind=median"],
            "in their best settings, and rungs .* as trained: set .*replan=true or .*median",
        ),
        (["sweep=nothing"], "nothing"),
        (["sweep.trails=3"], "trails"),
        (["sweep.trials=0"], "sweep.trials must be at least 1, got 0"),
        (["sweep.seed=5000000000"], "sweep.seed must be at most 4294967295, got 5000000000"),
        (["sweep.sampler=grid"], r"grid takes keys of the kinds choice, int .*got .*uniform for m"),
        (
            ["+sweep.objectives.twice={name: auto, nfe: 1}"],
            "must be different numbers, got auto at 1 NFE, auto at 1",
        ),
        (["sweep.objectives.quality.nfe=0"], "nfe must be at least 1, got 0"),
        (["sweep.seed=-1"], "sweep.seed must be at least 0, got -1"),
        (["sweep.objectives.quality.mode=least"], "mode must be min, max, auto, got 'least'"),
        (
            ["sweep.scheduler.kind=best"],
            "hyperband, median, pbt, pb2, got 'best'",
        ),
        (["sweep.scheduler.reduction=1"], "reduction at least 2"),
        (["sweep.name=../x"], "sweep.name must be"),
        (
            ["sweep.objectives.quality=1"],
            r"sweep.objectives.quality must be settings by name \(name, nfe, mode\), got 1",
        ),
        (["sweep.objectives=1"], "sweep.objectives must be numbers by label, got 1"),
        (
            ["+sweep.objectives.cost={name: cost/trainings}"],
            "name must be one of auto, eval/1nn.* cost/training_s, got 'cost/trainings'",
        ),
        (["+sweep.objectives.w2={name: eval/w2}"], "a number for all others, got None for eval/w2"),
        (["sweep.objectives.quality.nfe=null"], "nfe must be null for cost/training_s, "),
        (["+sweep.objectives.cost={name: cost/training_s, nfe: 1}"], "got 1 for cost/training_s"),
        (["sweep.sampler=best"], "sweep.sampler must be one of tpe, gp, .* got 'best'"),
        (
            ["+sweep.objectives.cost={name: cost/training_s}", "sweep.sampler=cmaes"],
            "sweep.sampler cmaes improves one number, got quality, cost",
        ),
        (["sweep.trials=many"], "sweep.trials must be a whole number, got 'many'"),
        (["sweep.trials=2.5"], "sweep.trials must be a whole number, got 2.5"),
        (["sweep.trials=true"], "sweep.trials must be a whole number, got True"),
        (["sweep.concurrency=null"], "sweep.concurrency must be a whole number, got None"),
        (["sweep.name=[a]"], r"sweep.name must be a text, got \['a'\]"),
        (["sweep.name=null"], "sweep.name must be a text, got None"),
        (["sweep.storage=null"], "sweep.storage must be a text, got None"),
        (
            ["sweep.objectives.quality.nfe=1.5"],
            "sweep.objectives.quality.nfe must be a whole number, got 1.5",
        ),
        (["sweep.objectives.quality.mode=[min]"], r"must be min, max, auto, got \['min'\]"),
        (
            ["sweep.scheduler.grace_samples=x"],
            "sweep.scheduler.grace_samples must be a whole number, got 'x'",
        ),
        (["sweep.scheduler=asha"], "sweep.scheduler must be settings by name .*, got 'asha'"),
        (["+sweep.scheduler.1=2"], "sweep.scheduler has no setting 1, allowed: kind"),
        (["sweep.space=3"], "sweep.space must be values by key, got 3"),
        (
            ["+sweep.space.net={kind: choice, values: 5}"],
            r"sweep.space\[net\]: a choice needs a list of values, got 5",
        ),
        (["sweep.base=null"], "sweep.base must be a list, got None"),
        (["sweep.base='data=moons'"], "sweep.base must be a list, got 'data=moons'"),
        (["sweep.base=[[a]]"], r"sweep.base must be a text, got \['a'\]"),
    ],
)
def test_a_bad_setting_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(overrides)


def test_a_number_can_name_a_sweep() -> None:
    assert settings_of(["sweep.name=5"]).name == "5"


def test_an_unknown_setting_is_refused_by_name(settings: SweepSettings) -> None:
    values: dict[str, Any] = settings.to_dict()
    with pytest.raises(ValueError, match=r"sweep has no setting trails, allowed: name, base"):
        SweepSettings.from_dict({**values, "trails": 3})
    del values["space"]
    with pytest.raises(ValueError, match="sweep lacks space"):
        SweepSettings.from_dict(values)


def test_the_number_of_trials_can_be_replaced(settings: SweepSettings) -> None:
    assert replace(settings, trials=40).trials == 40


def test_a_search_over_numbers_is_refused_where_there_are_choices_alone(
    settings: SweepSettings,
) -> None:
    space = Space.from_dict({"seed": {"kind": "choice", "values": [1, 2]}})
    with pytest.raises(ValueError, match="cmaes moves numbers, got choices alone: seed"):
        replace(settings, sampler=SamplerKind.CMAES, space=space)


def test_a_label_is_one_that_stores_take() -> None:
    with pytest.raises(ValueError, match=r"a label is letters, .* got 'a%b'"):
        Objectives.from_dict({"a%b": {"name": "eval/w2", "nfe": 1}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["sweep.startup=16", "sweep.trials=16"],
            "startup must be below sweep.trials, .* got 16 and 16",
        ),
        (["sweep.startup=8", "sweep.trials=8"], "below sweep.trials, .* got 8 and 8"),
        (["sweep.startup=8", "sweep.trials=4"], "below sweep.trials, .* got 8 and 4"),
        (["sweep.startup=3", "sweep.sampler=random"], "startup has no effect with .*=random"),
        (["sweep.startup=3", "sweep.sampler=nsga2"], "startup has no effect with .*=nsga2"),
        (["sweep.population=5"], "population has no effect with sweep.sampler=tpe and .*=none"),
    ],
)
def test_a_setting_without_effect_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(words)


@pytest.mark.parametrize(
    "words",
    [
        ["sweep.trials=2"],  # of the file's 4 random trials there are two
        ["sweep.sampler=random"],
        ["sweep.population=5", "sweep.sampler=nsga2"],
        ["sweep=mean_flow", "sweep.trials=4"],  # the file's 8 are the default
        ["sweep=mean_flow_population"],
    ],
)
def test_a_setting_that_a_command_line_leaves_without_effect_is_none_of_its_own(
    words: list[str],
) -> None:
    assert settings_of(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=mean_flow", "sweep.trials=8"], "tpe learns nothing in 8 trials: the first 8 are"),
        (["sweep=mean_flow", "sweep.trials=9"], ""),
        (["sweep=mean_flow", "sweep.trials=8", "sweep.sampler=random"], ""),
        (["sweep.sampler=nsga2", "sweep.trials=20"], "=nsga2 .* the first 20 .*sweep.population"),
        (["sweep.sampler=nsga2", "sweep.trials=21"], ""),
        (["sweep=mean_flow_population"], ""),
    ],
)
def test_a_sampler_that_comes_to_learn_nothing_is_told_of(words: list[str], said: str) -> None:
    found = settings_of(words).unlearned
    assert bool(found) == bool(said)
    assert re.search(said, found)


@pytest.mark.parametrize("data", ["digits", "moons", "checkerboard"])
def test_every_number_of_an_evaluation_is_known_before_the_data_are(data: str) -> None:
    found = metric_names(assemble(experiment_of((f"data={data}", "net=mlp"))).source.load())
    assert set(found) <= {name for metric in METRICS for name in metric.names}


def test_a_sweep_of_the_users_own_is_found_and_its_trials_find_its_files_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "mine.yaml").write_text(
        "name: mine\nbase: [data=moons]\nspace: {training.samples: {kind: int, low: 1, high: 9}}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = settings_of(["hydra.searchpath=[conf]", "sweep=mine", "seed=3"])
    assert found.name == "mine"
    assert found.base == (f'hydra.searchpath=["file://{tmp_path}/conf"]', "data=moons", "seed=3")
    monkeypatch.chdir("/")
    assert compose("train", found.base)["seed"] == 3
