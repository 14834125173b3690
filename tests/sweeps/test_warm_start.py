import argparse
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from optuna.storages import RDBStorage

from onestep.methods.core.schedule import Cosine, Linear, Schedule
from onestep.platform.training.assembly import assemble, registry_of
from onestep.platform.training.registration import record_of
from onestep.sweeps.book import Book
from onestep.sweeps.command import Sweep
from onestep.sweeps.cost import NOTHING
from onestep.sweeps.earlier import first_points
from onestep.sweeps.note import SweepNote, folder_of
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.search import resume, sweep
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.shape import node_of
from onestep.sweeps.space import Space
from onestep.sweeps.study import begin, open_storage, storage_url
from onestep.sweeps.trial import experiment_of
from onestep.sweeps.warm_start import FirstPoint, FirstPoints, WarmStart, outside

_NODE: Final = {
    "optimizer.lr": {"kind": "log_uniform", "low": 0.001, "high": 0.1},
    "method.weighting.power": {"kind": "choice", "values": [0.0, 0.5, 1.0]},
    "method.weighting.offset": {
        "kind": "uniform",
        "low": 0.1,
        "high": 0.9,
        "when": {"method.weighting.power": [0.5, 1.0]},
    },
    "constraints": ["optimizer.lr <= method.weighting.offset"],
}
_SPACE: Final = Space.from_dict(_NODE)
_SMALL: Final = (
    "data=eight_gaussians",
    "net=mlp",
    "net.width=16",
    "training.samples=128",
    "training.batch_size=64",
    "data.samples=2000",
    "data.held_out=400",
    "evaluation.nfes=[1]",
    "evaluation.samples=32",
    "sweep.concurrency=1",
    "sweep.trials=2",
)
_OTHER_KEYS: Final = {"net.width": {"kind": "choice", "values": [16, 32]}}
EARLIER: Final = "earlier-20261122-101500-aaaa"


@pytest.fixture
def home(home_folder: Path, monkeypatch: pytest.MonkeyPatch, empty_study: Path) -> Iterator[Path]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copy(empty_study, home_folder / "optuna.db")
    before = dict(os.environ)
    yield home_folder
    os.environ.clear()
    os.environ.update(before)


def small(**changes: Any) -> SweepSettings:
    return replace(settings_of(_SMALL), **{"space": _SPACE, **changes})


def ran_before(home: Path, settings: SweepSettings, *values: float) -> list[dict[str, Any]]:
    """An earlier sweep with these results; its points."""
    settings = replace(settings, objectives=settings.objectives.on((2,)))
    folder_of(EARLIER).mkdir(parents=True)
    SweepNote(asked=settings, settings=settings, revision="abc", code="").keep(EARLIER)
    storage = open_storage(storage_url(settings, home))
    study = begin(storage, EARLIER, settings.objectives)
    settings = replace(settings, trials=max(1, len(values)), sampler=SamplerKind.RANDOM)
    book = Book(study, settings, base=(), budgets=(128,), folder=folder_of(EARLIER))
    for value in values:
        suggestion = book.suggest()
        assert suggestion is not None
        numbers = [Number(value=value, low=value, high=value)]
        book.end(suggestion.number, numbers, samples=128, report="{}", cost=NOTHING)
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optimizer.lr": 0.05, "method.weighting.power": 0.0}, None),
        ({"optimizer.lr": 0.2, "method.weighting.power": 0.0}, "optimizer.lr is 0.2, which"),
        ({"optimizer.lr": 0.05, "method.weighting.power": 0.7}, "power is 0.7, which"),
        ({"optimizer.lr": 0.05, "method.weighting.power": False}, "power is False, which"),
        ({"optimizer.lr": True, "method.weighting.power": 0.0}, "lr is True, which"),
        ({"optimizer.lr": 0.05}, "missing ['method.weighting.power']"),
        (
            {"optimizer.lr": 0.05, "method.weighting.power": 0.0, "method.weighting.offset": 0.5},
            "surplus ['method.weighting.offset']",
        ),
        (
            {"optimizer.lr": 0.1, "method.weighting.power": 1.0, "method.weighting.offset": 0.1},
            None,
        ),
    ],
)
def test_a_point_lies_in_a_space_or_it_is_said_why_not(
    values: dict[str, Any], said: str | None
) -> None:
    found = outside(_SPACE, values)
    assert found is None if said is None else said in str(found)


def test_a_point_keeps_the_constraints_and_whole_numbers() -> None:
    node = {"a": {"kind": "int", "low": 1, "high": 9}, "b": {"kind": "int", "low": 1, "high": 9}}
    space = Space.from_dict({**node, "constraints": ["a < b"]})
    assert outside(space, {"a": 2, "b": 3}) is None
    assert outside(space, {"a": 2, "b": 2}) == "it breaks the constraint a < b"
    assert "a is 1.5" in str(outside(space, {"a": 1.5, "b": 3}))


def test_the_best_points_of_an_earlier_sweep_come_first_and_the_others_are_left_out(
    home: Path,
) -> None:
    points = ran_before(home, small(), 3.0, 1.0, 2.0, 4.0)
    narrow = json.loads(json.dumps(_NODE))
    narrow["optimizer.lr"]["high"] = high = points[1]["optimizer.lr"] * 0.9999
    kept = [number for number in (2, 0) if points[number]["optimizer.lr"] <= high]
    warm = WarmStart(sweeps=(EARLIER,), best=3)
    found = first_points(Plan.of(small(space=Space.from_dict(narrow), warm_start=warm)))
    assert [one.origin for one in found.points] == [
        f"trial {number} of sweep {EARLIER}" for number in kept
    ]
    assert [one.values for one in found.points] == [points[number] for number in kept]
    assert kept
    assert found.left_out[0].startswith(f"trial 1 of sweep {EARLIER}: optimizer.lr is ")
    assert len(found.left_out) == 3 - len(kept)


def test_a_point_is_tried_once() -> None:
    values = {"optimizer.lr": 0.05, "method.weighting.power": 0.0}
    twins = [FirstPoint(values=values, origin=name) for name in ("this", "that")]
    found = FirstPoints.of(twins, _SPACE)
    assert found.points == (twins[0],)
    assert found.left_out == ("that: the same point as this",)


def test_points_beyond_the_trials_are_said_to_be_left_out_and_wait_for_more_trials() -> None:
    points = tuple(FirstPoint(values={}, origin=f"point {name}") for name in "abc")
    found = FirstPoints(points=points, left_out=("point d: outside",))
    settings = small(trials=2)
    assert found.sentences(settings.founders) == [
        "trial 0 starts from point a",
        "trial 1 starts from point b",
        "left out is point d: outside",
        "left out is point c: no trial is left for it",
    ]
    more = replace(settings, trials=3)
    assert found.sentences(more.founders)[2] == "trial 2 starts from point c"


def test_no_trial_of_a_later_generation_starts_from_a_first_point() -> None:
    words = [*_SMALL, "sweep=mean_flow_population", "sweep.population=2"]
    settings = settings_of([*words, "sweep.trials=4"])
    points = tuple(FirstPoint(values={}, origin=f"point {name}") for name in "abc")
    said = FirstPoints(points=points).sentences(settings.founders)
    assert said[-1] == "left out is point c: no trial is left for it"


def test_of_a_sweep_over_other_keys_the_common_ones_are_taken_and_the_rest_begins_the_space(
    home: Path,
) -> None:
    other = Space.from_dict({"optimizer.lr": _NODE["optimizer.lr"], **_OTHER_KEYS})
    (before,) = ran_before(home, small(space=other), 1.0)
    asked = small(warm_start=WarmStart(sweeps=(EARLIER,)))
    (point,) = first_points(Plan.of(asked)).points
    assert point.values == {
        "optimizer.lr": before["optimizer.lr"],
        "method.weighting.power": 0.0,
    }
    assert point.origin == f"trial 0 of sweep {EARLIER}, with method.weighting.power=0.0"


_OTHERS: Final = Objectives(by_label={"q": Objective(name="eval/sliced_w2", nfe=1)})


@pytest.mark.parametrize(
    ("changes", "values", "said"),
    [
        ({}, None, rf"there is no sweep '{EARLIER}'"),
        ({}, (), "has no finished trial"),
        (
            {"space": Space.from_dict(_OTHER_KEYS)},
            (1.0,),
            r"shares no key .* only here \['method.wei",
        ),
        (
            {"objectives": _OTHERS},
            (1.0,),
            r"improved eval/sliced_w2 at 1 NFE \(smaller is better\), this one improves",
        ),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_written(
    changes: dict[str, Any], values: tuple[float, ...] | None, said: str, home: Path
) -> None:
    if values is not None:
        ran_before(home, small(**changes), *values)
    before = sorted((home / "sweeps").glob("*"))
    with pytest.raises(ValueError, match=said):
        sweep(small(warm_start=WarmStart(sweeps=(EARLIER,))))
    assert sorted((home / "sweeps").glob("*")) == before


def test_a_warm_start_without_a_point_in_the_space_is_refused(home: Path) -> None:
    ran_before(home, small(), 1.0)
    narrow = {**_NODE, "optimizer.lr": {"kind": "uniform", "low": 2.0, "high": 3.0}}
    narrow.pop("constraints")
    asked = small(space=Space.from_dict(narrow), warm_start=WarmStart(sweeps=(EARLIER,)))
    with pytest.raises(ValueError, match=r"no point in sweep.space; left out is trial 0 of sweep"):
        first_points(Plan.of(asked))


def test_a_registry_without_a_model_that_fits_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match=r"no registered model has eval/w2 at 1 NFE"):
        first_points(Plan.of(small(warm_start=WarmStart(registry=True))))


_KEY: Final = "method.times.diagonal"
_SHAPES: Final = {
    "kind": "schedule",
    "shapes": ["linear", "sigmoid", "piecewise", "constant"],
    "start": 1.0,
    "end": {"kind": "uniform", "low": 0.1, "high": 0.5},
    "begin": {"kind": "uniform", "low": 0.0, "high": 0.4},
    "length": {"kind": "uniform", "low": 0.2, "high": 0.6},
    "value": {"kind": "uniform", "low": 0.25, "high": 0.75},
    "knots": [1, 2],
    "lengths": {"kind": "uniform", "low": 0.1, "high": 0.3},
    "values": {"kind": "uniform", "low": 0.4, "high": 0.9},
}
_CURRICULA: Final = Space.from_dict({_KEY: _SHAPES, "optimizer.lr": _NODE["optimizer.lr"]})
_OF_A_MODEL: Final = WarmStart(registry=True)


def drawing(schedule: Schedule) -> tuple[str, str]:
    """What a user writes for another curriculum."""
    return f"~{_KEY}", f"+{_KEY}={node_of(schedule)}"


def registered(plan: Plan, *overrides: str, quality: float = 1.0) -> str:
    """A model that a training of these overrides gave, in the registry of its home."""
    assembly = assemble(experiment_of((*plan.base, *overrides)))
    record = record_of(assembly, assembly.source.load(), ema="online", revision="abc")
    registry = registry_of(assembly.experiment)
    run = registry.connection.client.create_run(registry.connection.experiment("trained"))
    record = replace(record, metrics={"eval/w2/nfe_1": quality})
    return str(registry.register(record, {"bias": torch.ones(1)}, run_id=run.info.run_id))


@pytest.mark.parametrize(
    "curriculum",
    [
        {"shape": "linear", "end": 0.25, "begin": 0.1, "length": 0.2},
        {"shape": "sigmoid", "end": 0.5, "begin": 0.0, "length": 0.6},
        {"shape": "constant", "value": 0.3},
        {"shape": "piecewise", "knots": 1, "end": 0.1, "length_1": 0.3},
        {"shape": "piecewise", "knots": 2, "end": 0.1}
        | {"length_1": 0.1, "length_2": 0.2, "value_2": 0.7},
    ],
    ids=lambda one: f"{one['shape']}-{one.get('knots', 0)}",
)
def test_a_sweep_starts_from_the_curriculum_of_the_best_model(
    curriculum: dict[str, Any], home: Path
) -> None:
    point = {f"{_KEY}.{name}": value for name, value in curriculum.items()} | {"optimizer.lr": 0.01}
    plan = Plan.of(small(space=_CURRICULA, warm_start=_OF_A_MODEL))
    registered(plan, *drawing(Linear(start=1.0, end=0.5)), quality=2.0)
    model = registered(plan, *_CURRICULA.overrides(point))
    found = first_points(plan)
    assert found == FirstPoints(points=(FirstPoint(values=point, origin=f"model {model}"),))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            drawing(Cosine(start=1.0, end=0.25, until=0.5)),
            "method.times.diagonal has the shape cosine, sweep.space draws linear, sigmoid,",
        ),
        (
            drawing(Linear(start=1.0, end=0.05, until=0.95)),
            "diagonal has end 0.05, until 0.95, and the nearest that .* has end 0.1, until 0.6",
        ),
        (
            (*drawing(Linear(start=1.0, end=0.25, until=0.5)), "optimizer.lr=1.0"),
            "optimizer.lr is 1.0, which sweep.space does not draw",
        ),
        ((f"~{_KEY}",), "its line writes no schedule at method.times.diagonal"),
    ],
)
def test_it_is_said_why_a_sweep_does_not_start_from_the_best_model(
    overrides: tuple[str, ...], said: str, home: Path
) -> None:
    warm = WarmStart(registry=True, sweeps=(EARLIER,))
    plan = Plan.of(small(space=_CURRICULA, warm_start=warm))
    model = registered(plan, *overrides)
    (earlier,) = ran_before(home, small(space=_CURRICULA), 1.0)
    found = first_points(plan)
    assert [one.values for one in found.points] == [earlier]
    assert re.match(f"model {model}: .*{said}", found.left_out[0])
    alone = replace(plan, settings=replace(plan.settings, warm_start=_OF_A_MODEL))
    with pytest.raises(ValueError, match=rf"no point in sweep.space; left out is model .*{said}"):
        first_points(alone)


def test_a_model_and_the_trial_that_it_comes_from_are_one_point() -> None:
    """Though a length that was drawn has more digits than the schedule keeps."""
    curriculum = {"shape": "linear", "end": 0.25, "begin": 0.1, "length": 0.2 + 1e-14}
    point = {f"{_KEY}.{name}": value for name, value in curriculum.items()} | {"optimizer.lr": 0.01}
    twins = [FirstPoint(values={**point, f"{_KEY}.length": 0.2}, origin="this")]
    found = FirstPoints.of([*twins, FirstPoint(values=point, origin="that")], _CURRICULA)
    assert found == FirstPoints(points=tuple(twins), left_out=("that: the same point as this",))


def test_a_dry_run_says_which_trial_starts_from_what(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran_before(home, settings_of(_SMALL), 1.0)
    parser = argparse.ArgumentParser()
    Sweep().configure(parser)
    words = ["--dry-run", *_SMALL, f"sweep.warm_start.sweeps=[{EARLIER}]"]
    assert Sweep().run(parser.parse_args(words)) == 0
    assert f"\n\ntrial 0 starts from trial 0 of sweep {EARLIER}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"best": 0}, "best must be at least 1"),
        ({"sweeps": ["a", "a"]}, "each sweep once, got a, a"),
    ],
)
def test_settings_of_a_warm_start_are_checked(node: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SweepSettings.from_dict({**small().to_dict(), "warm_start": node})


def test_settings_of_a_warm_start_come_back() -> None:
    asked = small(warm_start=WarmStart(sweeps=(EARLIER,), best=2, registry=True))
    assert SweepSettings.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked


def new_storage(folder: Path, empty_study: Path) -> RDBStorage:
    folder.mkdir()
    shutil.copy(empty_study, folder / "optuna.db")
    return open_storage(f"sqlite:///{folder / 'optuna.db'}")


_TOY: Final = Space.from_dict(
    {
        "x": {"kind": "uniform", "low": 0.0, "high": 1.0},
        "k": {"kind": "choice", "values": ["a", "b", "c"]},
    }
)
_FIRST: Final = tuple(
    FirstPoint(values={"x": x, "k": k}, origin=f"point {k}") for x, k in ((0.25, "c"), (0.5, "a"))
)


@pytest.mark.parametrize("kind", [kind for kind in SamplerKind if kind is not SamplerKind.GRID])
def test_first_points_are_tried_first_and_a_killed_sweep_goes_on_as_it_would_have(
    kind: SamplerKind, tmp_path: Path, empty_study: Path
) -> None:
    """The sampler learns from them: there are as many as it waits for."""
    settings = small(sampler=kind, startup=1, population=5, trials=6)
    settings = replace(settings, space=_TOY)

    def points(folder: str, *, killed_after: tuple[int, ...]) -> list[dict[str, Any]]:
        storage = new_storage(tmp_path / folder, empty_study)

        def opened() -> Book:
            study = begin(storage, "toy", settings.objectives)
            if not killed_after or FirstPoints.known_to(study) is None:
                FirstPoints(points=_FIRST).keep(study)
            known = FirstPoints.known_to(study)
            assert known is not None
            place = tmp_path / folder
            return Book(study, settings, base=(), budgets=(9,), folder=place, first=known.points)

        book = opened()
        for count in range(settings.trials):
            suggestion = book.suggest()
            assert suggestion is not None
            if count in killed_after:
                book = opened()
                assert book.suggest() == suggestion
            x = book.study.get_trials()[count].params["x"]
            numbers = [Number(value=x, low=x, high=x)]
            book.end(count, numbers, samples=9, report="{}", cost=NOTHING)
        trials = book.study.get_trials()
        origins = [trial.user_attrs.get("origin") for trial in trials]
        assert origins == ["point c", "point a", None, None, None, None]
        return [trial.params for trial in trials]

    once = points("whole", killed_after=())
    assert once[:2] == [dict(one.values) for one in _FIRST]
    assert points("killed", killed_after=(0, 1, 4)) == once
    assert len({point["x"] for point in once}) > 3


@pytest.mark.parametrize("kind", [SamplerKind.RANDOM, SamplerKind.QMC, SamplerKind.TPE])
def test_a_warm_start_does_not_draw_the_points_of_an_earlier_sweep_again(
    kind: SamplerKind, tmp_path: Path, empty_study: Path
) -> None:
    """Both have the same seed, and the earlier one's first points are those of the later one."""
    settings = replace(small(sampler=kind, startup=9, trials=6), space=_TOY)

    def points(name: str, first: tuple[FirstPoint, ...]) -> list[dict[str, Any]]:
        study = begin(new_storage(tmp_path / name, empty_study), "toy", settings.objectives)
        book = Book(study, settings, base=(), budgets=(9,), folder=tmp_path, first=first)
        for _ in range(settings.trials):
            assert book.suggest() is not None
        return [trial.params for trial in study.get_trials()]

    earlier = points("earlier", ())
    best = (FirstPoint(values=earlier[1], origin="elsewhere"),)
    later = points("later", best)
    assert later[0] == earlier[1]
    assert not {point["x"] for point in later[1:]} & {point["x"] for point in earlier}


def test_a_grid_does_not_try_a_first_point_again(tmp_path: Path, empty_study: Path) -> None:
    space = Space.from_dict({"k": {"kind": "choice", "values": ["a", "b", "c"]}})
    settings = replace(small(), sampler=SamplerKind.GRID, trials=9, space=space)
    study = begin(new_storage(tmp_path / "g", empty_study), "toy", settings.objectives)
    first = (FirstPoint(values={"k": "b"}, origin="elsewhere"),)
    book = Book(study, settings, base=(), budgets=(9,), folder=tmp_path, first=first)
    found = []
    while (suggestion := book.suggest()) is not None:
        found.append(suggestion.own[0])
        numbers = [Number(value=1.0, low=1.0, high=1.0)]
        book.end(suggestion.number, numbers, samples=9, report="{}", cost=NOTHING)
    assert found[0] == "k=b"
    assert sorted(found) == ["k=a", "k=b", "k=c"]


def test_genetic_search_breeds_from_first_points(tmp_path: Path, empty_study: Path) -> None:
    """More of them than a generation has."""
    settings = replace(small(sampler=SamplerKind.NSGA2, population=2, trials=5), space=_TOY)
    study = begin(new_storage(tmp_path / "g", empty_study), "toy", settings.objectives)
    first = (*_FIRST, FirstPoint(values={"x": 0.75, "k": "b"}, origin="point b"))
    book = Book(study, settings, base=(), budgets=(9,), folder=tmp_path, first=first)
    for number in range(5):
        book.suggest()
        numbers = [Number(value=1.0, low=1.0, high=1.0)]
        book.end(number, numbers, samples=9, report="{}", cost=NOTHING)
    generations = [
        next(value for key, value in trial.system_attrs.items() if "generation" in key)
        for trial in study.get_trials()
    ]
    assert generations == [0, 0, 1, 1, 2]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_starts_from_a_sweep_and_a_model_and_remembers_it(home: Path) -> None:
    settings = small(name="first")
    earlier = sweep(settings)
    warm = WarmStart(sweeps=(earlier.study_name,), best=2, registry=True)
    lines: list[str] = []
    again = sweep(replace(settings, name="second", seed=1, warm_start=warm), say=lines.append)
    best, other = sorted(earlier.trials, key=lambda one: one.results[0].value)
    assert [one.values for one in again.trials] == [best.values, other.values]
    assert again.trials[0].results == best.results, "it was run anew with the same seed"
    name = f"of sweep {earlier.study_name}"
    assert f"trial 0 starts from model {earlier.model}" in lines
    assert f"trial 1 starts from trial {other.number} {name}" in lines
    assert any("the same point as model" in line for line in lines)
    page = (again.folder / "report.html").read_text()
    assert f"model {earlier.model}" in page.replace("<wbr>", "")
    shutil.rmtree(folder_of(earlier.study_name))  # what it starts from is known by now
    assert len(resume(again.study_name, trials=3).trials) == 3
