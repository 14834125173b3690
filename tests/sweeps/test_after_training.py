"""A trial that has really been trained, used in several ways afterwards."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from onestep.platform.evaluation.benchmark import Benchmark
from onestep.platform.evaluation.latency import LATENCY
from onestep.platform.evaluation.report import Measurement, Report
from onestep.platform.training.assembly import assemble
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import train_trial
from onestep.sweeps.after_training import AfterTraining, Judged
from onestep.sweeps.bench import Bench, ways_of
from onestep.sweeps.objective import Number, Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.posthoc import PostHoc, Timing
from onestep.sweeps.posthoc_setting import Setting
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.subtrial import SubTrial

_BASE: Final = (
    "method=mean_flow",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=32",
    "training.samples=16384",
    "training.batch_size=128",
    "training.threads=1",
    "training.ema_snapshots=8",
    # One that stays where it began, which any other one beats, and one that follows at once.
    "training.ema_half_lives=[1.0e9,1]",
    "training.ema_ramp=1.0e6",
    "evaluation.nfes=[1,2]",
    "evaluation.samples=64",
)
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=_BASE,
    space=Space.from_dict({"optimizer.lr": {"kind": "uniform", "low": 0.005, "high": 0.006}}),
    objectives=Objectives.from_dict({"quality": {"name": "eval/w2", "nfe": 2}}),
    posthoc=PostHoc.from_dict(
        {
            "space": {
                "ema.width": {"kind": "uniform", "low": 0.02, "high": 0.2},
                "sampler.grid.inner": {"kind": "uniform", "low": 0.1, "high": 0.9},
            },
            "base": ["sampler=jumps"],
            "trials": 2,
        }
    ),
    latency=Timing(batch_size=2, repeats=6),
    trials=1,
    concurrency=1,
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    bench: Bench
    after: AfterTraining
    tried: list[SubTrial]
    judged: Judged


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    plan = Plan.of(_SETTINGS)
    dataset = assemble(plan.experiment).source.load()
    checkpoint = train_trial(plan.experiment, MemoryReporter(), folder=folder, dataset=dataset)
    bench = Bench(
        overrides=plan.example, checkpoint=checkpoint, folder=folder, timing=_SETTINGS.latency
    )
    after = AfterTraining(
        objectives=_SETTINGS.objectives,
        posthoc=_SETTINGS.posthoc,
        timing=_SETTINGS.latency,
        seed=0,
        judging=plan.benchmark(dataset),
        tuning=plan.tuning_benchmark(dataset),
    )
    tried: list[SubTrial] = []
    judged = after.judge(
        bench, number=0, is_whole=True, training_s=1.5, known=[], told=tried.append
    )
    return Trained(bench=bench, after=after, tried=tried, judged=judged)


def quality(report: Report, nfe: int = 2) -> Number:
    found = report.find("eval/w2", nfe=nfe)
    return Number(value=found.value, low=found.interval[0], high=found.interval[1])


def point(benchmark: Benchmark) -> set[tuple[float, ...]]:
    return {tuple(row) for row in benchmark.reference.held_out.x.tolist()}


def test_settings_are_chosen_on_other_data_and_noise_than_trials_are_judged_on(
    trained: Trained,
) -> None:
    tuning, judging = trained.after.tuning, trained.after.judging
    assert tuning is not None
    assert len(point(tuning)) == len(point(judging)) == 64
    assert not point(tuning) & point(judging)
    assert tuning.seed != judging.seed


def test_a_trial_is_worth_what_its_setting_gives_on_the_data_that_had_no_part_in_the_choice(
    trained: Trained,
) -> None:
    found, told = trained.judged, trained.tried
    assert [one.place for one in told] == [0, 1, 2]
    assert all(not one.error for one in told)
    best = min(told, key=lambda one: one.tuned[0].value)
    assert (found.chosen["place"], found.chosen["values"]) == (best.place, best.values)
    assert quality(found.report) == best.judged[0] != best.tuned[0]
    assert all(one.judged[0] != one.tuned[0] for one in told)
    first = told[0].judged[0]
    assert found.chosen["as_trained"] == [[first.value, first.low, first.high]]
    assert best.place, "an average that stays where it began is beaten"
    plain = Report.from_json((trained.bench.folder / "as_trained.json").read_text())
    assert quality(plain) == first


def test_a_trial_that_was_cut_off_after_its_training_ends_with_the_same_numbers(
    trained: Trained,
) -> None:
    rest: list[SubTrial] = []
    again = trained.after.judge(
        trained.bench,
        number=0,
        is_whole=True,
        training_s=1.5,
        known=trained.tried[:2],
        told=rest.append,
    )
    assert [(one.place, one.tuned) for one in rest] == [(2, trained.tried[2].tuned)]
    assert again.chosen == trained.judged.chosen
    assert quality(again.report) == quality(trained.judged.report)


def test_a_setting_reaches_the_weights_the_sampler_and_nothing_else(trained: Trained) -> None:
    def report(**changes: Any) -> Report:
        (found,) = trained.bench.reports(Setting(**changes), [trained.after.judging])
        return found

    plain, width = report(), report(width=0.1)
    named = report(sampler=("sampler=jumps", "sampler.grid.inner=[0.2]"))
    even = report(sampler=("sampler=jumps", "sampler.grid.inner=[0.5]"))
    served = report(train=("training.ema_served=1",))
    assert plain.provenance.ema == "half-life 1e+09 samples"
    assert width.provenance.ema == "relative width 0.1"
    assert served.provenance.ema == "half-life 1 samples"
    assert len({quality(one).value for one in (plain, width, served, named)}) == 4
    # One step is the domain's own whatever is named for two, and even steps are its own two.
    assert quality(named, nfe=1) == quality(plain, nfe=1)
    assert quality(even) == quality(plain)
    assert "inner=(0.2,)" in named.find("eval/w2", nfe=2).sampler


def test_latency_is_measured_at_every_number_of_evaluations_under_stated_conditions(
    trained: Trained,
) -> None:
    reports = trained.bench.reports(Setting(), [trained.after.judging, trained.after.judging])
    found = [reports[0].find(LATENCY, nfe=nfe) for nfe in (1, 2)]
    assert [(one.count, one.draws) for one in found] == [(2, 6)] * 2
    assert all(one.interval[0] <= one.value <= one.interval[1] for one in found)
    assert all(one.value > 0.0 for one in found)
    # One measurement serves all yardsticks.
    assert reports[0].find(LATENCY, nfe=2) == reports[1].find(LATENCY, nfe=2)
    ways = ways_of(reports[0], _SETTINGS.objectives)
    assert [(way.nfe, way.quality) for way in ways] == [
        (nfe, quality(reports[0], nfe)) for nfe in (1, 2)
    ]
    assert [way.latency and way.latency.value for way in ways] == [one.value for one in found]
    silent = replace(trained.bench, timing=Timing(repeats=0))
    (without,) = silent.reports(Setting(), [trained.after.judging])
    assert LATENCY not in {one.name for one in without.measurements}


def test_a_quality_that_is_no_number_is_no_way_to_use_a_trial(trained: Trained) -> None:
    (report,) = trained.bench.reports(Setting(), [trained.after.judging])
    rows = [
        replace(one, value=math.nan) if (one.name, one.nfe) == ("eval/w2", 1) else one
        for one in report.measurements
    ]
    undefined = replace(report, measurements=tuple(rows))
    assert [way.nfe for way in ways_of(report, _SETTINGS.objectives)] == [1, 2]
    assert [way.nfe for way in ways_of(undefined, _SETTINGS.objectives)] == [2]


def test_a_trial_in_which_nothing_is_tried_is_judged_as_it_was_trained(trained: Trained) -> None:
    after = replace(trained.after, posthoc=None, tuning=None)
    found = judged(after, trained.bench, is_whole=True)
    (plain,) = trained.bench.reports(Setting(), [trained.after.judging])
    assert quality_of(found.report) == quality_of(plain)
    assert found.chosen == {}


def test_a_trial_that_may_go_on_is_measured_by_its_objectives_alone(trained: Trained) -> None:
    after = replace(trained.after, posthoc=None, tuning=None)
    found = judged(after, trained.bench, is_whole=False).report
    whole = quality_of(judged(after, trained.bench, is_whole=True).report)
    asked = [one for one in whole if one.name == "eval/w2"]
    assert quality_of(found) == asked
    assert len(asked) == 2 < len(whole)


def quality_of(report: Report) -> list[Measurement]:
    """What is the same whenever it is measured."""
    return [one for one in report.measurements if one.name != LATENCY]


def judged(after: AfterTraining, bench: Bench, *, is_whole: bool) -> Judged:
    return after.judge(bench, number=0, is_whole=is_whole, training_s=1.5, known=[], told=_never)


def _never(one: SubTrial) -> None:
    raise AssertionError(one)
