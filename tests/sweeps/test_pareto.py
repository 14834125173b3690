from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest

from onestep.platform.evaluation.report import Measurement, Provenance, Report
from onestep.sweeps.cost import Cost
from onestep.sweeps.findings import Findings
from onestep.sweeps.lineage import LINEAGE, Lineage
from onestep.sweeps.note import SweepNote
from onestep.sweeps.objective import Number
from onestep.sweeps.pareto import Point, pareto_set, points_of, rounded
from onestep.sweeps.record import COST, COSTS, OVERRIDES, RUNG, report_file
from onestep.sweeps.settings import SweepSettings
from onestep.tests.sweeps.booking import SETTINGS
from onestep.tests.sweeps.populating import SETTINGS as POPULATION


def point(
    trial: int, quality: float, *, nfe: int = 1, cost: float = 10.0, ms: float | None = 5.0
) -> Point:
    def exactly(value: float) -> Number:
        return Number(value=value, low=value, high=value)

    return Point(
        trial=trial,
        place=0,
        said="as trained",
        nfe=nfe,
        quality=exactly(quality),
        training_s=cost,
        latency=None if ms is None else exactly(ms),
    )


def best(*points: Point, sign: float = 1.0) -> list[int]:
    return [one.trial for one in pareto_set(points, sign=sign)]


@pytest.mark.parametrize("better", [{"nfe": 1}, {"cost": 5.0}, {"ms": 2.0}])
def test_a_worse_quality_stays_for_fewer_evaluations_a_cheaper_training_or_faster_samples(
    better: dict[str, Any],
) -> None:
    first, worse = point(0, 1.0, nfe=2), point(1, 2.0, **{"nfe": 2, **better})
    assert best(worse, first) == [0, 1]
    assert best(point(1, 2.0, nfe=2), first) == [0]


def test_larger_values_may_be_the_better_ones() -> None:
    assert best(point(0, 1.0), point(1, 2.0), sign=-1.0) == [1]


def test_a_hair_of_time_makes_no_better_point() -> None:
    assert best(point(0, 1.0, cost=10.4, ms=5.04), point(1, 2.0, cost=10.1, ms=4.96)) == [0]
    assert best(point(0, 1.0, ms=5.06), point(1, 2.0, ms=4.94)) == [0, 1]


def test_latency_counts_if_all_have_it_and_a_set_of_nothing_is_nothing() -> None:
    assert best(point(0, 1.0, ms=9.0), point(1, 2.0, ms=1.0), point(2, 3.0, ms=None)) == [0]
    assert best() == []


@pytest.mark.parametrize(
    ("given", "kept"), [(123.4, 120.0), (0.01234, 0.012), (9.96, 10.0), (0.0, 0.0), (1.0, 1.0)]
)
def test_times_have_two_digits(given: float, kept: float) -> None:
    assert rounded(given) == pytest.approx(kept)


def costs_of_points(
    settings: SweepSettings, notes: list[Mapping[str, Any]], folder: Path
) -> dict[int, float]:
    """What the trainings of a sweep cost, by the points of its Pareto set's trials."""
    study = optuna.create_study()
    measured = Measurement(
        name="eval/w2", value=1.0, interval=(1.0, 1.0), count=4, draws=1, space="data", nfe=1
    )
    made_of = Provenance(
        model="trial",
        data="moons",
        data_digest="d",
        features="coordinates",
        classifier_accuracy=None,
        count=4,
        draws=1,
        seed=0,
    )
    report = Report(provenance=made_of, measurements=(measured,)).to_json()
    for number, own in enumerate(notes):
        kept = {OVERRIDES: [], **own}
        study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=kept))
        file = report_file(folder, number, rung=own.get(RUNG))
        file.parent.mkdir(parents=True)
        file.write_text(report)
    note = SweepNote(asked=settings, settings=settings, revision="abc", code="")
    points = points_of(Findings(study=study, note=note, folder=folder))
    return {one.trial: one.training_s for one in points}


def took(seconds: float) -> dict[str, Any]:
    return asdict(Cost(training_s=seconds))


def test_a_run_of_the_last_rung_costs_what_it_took_without_those_of_lower_rungs(
    tmp_path: Path,
) -> None:
    notes = {RUNG: 1, COSTS: {"0": took(2.0), "1": took(3.0)}, COST: took(5.0)}
    assert costs_of_points(SETTINGS, [notes, {COST: took(7.0)}], tmp_path) == {0: 3.0, 1: 7.0}


def test_of_a_population_whole_members_are_points_and_cost_what_their_line_took(
    tmp_path: Path,
) -> None:
    lines = [(0, None), (0, None), (1, 1), (2, 2)]
    notes = [
        {
            LINEAGE: Lineage(member=0, generation=part, own=(), parent=parent).to_dict(),
            COST: took(2.0**number),
        }
        for number, (part, parent) in enumerate(lines)
    ]
    assert POPULATION.generations == 3
    assert costs_of_points(POPULATION, notes, tmp_path) == {3: 2.0 + 4.0 + 8.0}
