"""Recorded trials: the replay decides as a sweep does, and the committed verdicts are today's."""

import itertools
import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from onestep.benchmarks import recorded_sweep, recorded_sweep_page, sweep_findings, sweep_replay
from onestep.benchmarks.record import RESULTS
from onestep.benchmarks.sweep_record import CURRICULA, RECORDED, SIZES, Recorded, trials_of
from onestep.sweeps.book import Book
from onestep.sweeps.cost import NOTHING
from onestep.sweeps.objective import Number
from onestep.sweeps.stopping import StoppingKind
from onestep.sweeps.study import begin

STORED: Final = json.loads((RESULTS / "recorded_sweep.json").read_text())
FEW: Final = 16
"""Trials of a sweep that is driven by its book."""


def runs_of_a_sweep(
    recorded: Recorded, values: sweep_replay.Table, folder: Path, *, fill: bool
) -> list[Any]:
    """Trials and rungs in the order in which the book of a sweep starts them, one at a time."""
    rule = replace(recorded.settings.scheduler, fill=fill)
    settings = replace(recorded.settings, trials=len(values), scheduler=rule)
    study = begin(InMemoryStorage(), recorded.name, settings.objectives)
    budgets = recorded.ladders[recorded.reductions[0]]
    book = Book(study, settings, base=settings.base, budgets=budgets, folder=folder)
    arrived: list[int] = []
    runs = []
    while (suggestion := book.suggest()) is not None:
        assert suggestion.rung is not None
        if suggestion.number not in arrived:
            arrived.append(suggestion.number)  # some numbers were of points that break a constraint
        trial = arrived.index(suggestion.number)
        runs.append((trial, suggestion.rung))
        numbers = [Number(value=one, low=one, high=one) for one in values[trial][suggestion.rung]]
        book.end(suggestion.number, numbers, samples=1, report="{}", cost=NOTHING)
    return runs


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("recorded", [CURRICULA, SIZES], ids=lambda one: one.name)
def test_a_replay_runs_what_a_sweep_runs(recorded: Recorded, fill: bool, tmp_path: Path) -> None:
    count = len(recorded.settings.objectives.all)
    drawn = np.random.default_rng(0).random((FEW, 3, count))
    values = [[tuple(map(float, rung)) for rung in trial] for trial in drawn]
    reduction = recorded.reductions[0]
    found = sweep_replay.halved(values, range(FEW), reduction=reduction, fill=fill)
    assert list(found.runs) == runs_of_a_sweep(recorded, values, tmp_path, fill=fill)
    assert {trial for trial, rung in found.runs if rung == 2} == {*found.whole}


def test_a_replay_of_several_at_once_starts_as_many_as_run() -> None:
    """All last equally long: the second is not known when the fourth begins."""
    values = [[(float(k),)] * 2 for k in range(6)]
    one = sweep_replay.halved(values, range(6), reduction=2)
    four = sweep_replay.halved(values, range(6), reduction=2, at_once=4)
    assert one.runs[:3] == ((0, 0), (1, 0), (0, 1))
    assert four.runs[:4] == ((0, 0), (1, 0), (2, 0), (3, 0))
    assert {*four.runs} >= {(0, 1), (1, 1), (2, 1)}


def test_one_whose_run_failed_never_wins() -> None:
    values = [[(0.0,), (inf,)], [(1.0,), (5.0,)], [(2.0,), (7.0,)], [(3.0,), (9.0,)]]
    found = sweep_replay.halved(values, range(4), reduction=2)
    assert found.winner(values) == 1


def test_a_stopped_run_is_paid_for_up_to_its_rung() -> None:
    values = [[(1.0,), (1.0,), (1.0,)], [(2.0,), (2.0,), (2.0,)], [(0.0,), (3.0,), (3.0,)]]
    rule = replace(SIZES.stopping(3), replan=False)
    found = sweep_replay.stopped(values, range(3), stopping=rule, budgets=(1, 3, 9))
    assert found.runs == ((0, 2), (1, 0), (2, 1))
    assert found.whole == (0,)


def test_the_best_of_some_drawn_at_random_is_that_of_all_ways_to_draw_them() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    expected = [
        np.mean([min(some) for some in itertools.combinations(values, k + 1)]) for k in range(5)
    ]
    assert sweep_replay.expected_best(values) == pytest.approx(expected)


def test_a_hypervolume_is_that_of_a_box_up_to_the_reference() -> None:
    everything = np.array([[0.0, 4.0], [10.0, 0.0], [20.0, 8.0]])
    alone = sweep_replay.hypervolume(everything[:1], everything)
    assert alone == pytest.approx(1.1 * (1.1 - 0.5))
    strict = sweep_replay.hypervolume(everything[:1], everything, is_strict=True)
    assert strict == pytest.approx(1.1 * 0.1)


@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
def test_a_record_is_of_the_sweep_of_today(recorded: Recorded) -> None:
    stored = recorded.stored()
    assert stored["digest"] == recorded.digest
    if recorded.name in recorded_sweep.JUDGED:
        assert recorded.is_whole(stored)
    assert len(recorded.points) == len({*recorded.points}) >= 64
    for number, trial in enumerate(trials_of(stored)):
        assert trial["own"] == list(recorded.points[number])
        assert len(trial["runs"]) == len(recorded.budgets)


@pytest.mark.parametrize("row", STORED["rules"], ids=lambda row: "{record}-{rule}".format(**row))
def test_what_was_replayed_is_what_the_platform_decides_today(row: dict[str, Any]) -> None:
    recorded, order = RECORDED[row["record"]], sweep_findings.orders(1, row["trials"])
    stored = recorded.stored()
    if row["rule"] == "fair":
        places = [recorded.settings.objectives.labels.index(row["number"])]
        about = row["reduction"], row["at_once"]
        (again,) = sweep_findings.replayed(
            recorded, stored, places, *about, order, fill=row["fill"]
        )
    else:
        kind = StoppingKind(row["rule"].removeprefix("naive "))
        (again,) = sweep_findings.replayed_on_the_way(recorded, stored, kind, order)
    assert [list(run) for run in again.runs] == row["first"][0]


@pytest.mark.parametrize(
    "row", STORED["fronts"], ids=lambda row: "{reduction}-{fill}-{at_once}".format(**row)
)
def test_what_was_replayed_by_two_numbers_is_what_the_platform_decides_today(
    row: dict[str, Any],
) -> None:
    about = row["reduction"], row["at_once"], sweep_findings.orders(1, recorded_sweep.TRIALS)
    stored = SIZES.stored()
    (again,) = sweep_findings.replayed(SIZES, stored, [0, 1], *about, fill=row["fill"])
    assert [list(run) for run in again.runs] == row["first"][0]


def test_a_winner_that_is_no_better_than_chance_misses_its_bar() -> None:
    """Where trials differ, the best of two fifths of them, drawn at random, is not enough."""
    fewer = STORED["fewer"]["sizes"]["inside"]
    assert fewer[round(0.4 * len(fewer)) - 1] < recorded_sweep.INSIDE


def test_chance_has_as_many_whole_trials_as_the_rule_pays_for() -> None:
    """Two of five trials are as good as the best: chance misses both or not."""
    drawn = [
        np.mean([bool({0, 1} & {*some}) for some in itertools.combinations(range(5), k + 1)])
        for k in range(5)
    ]
    numbers = {"fewer": {"sizes": {"inside": drawn}}}
    for share, count in ((0.2, 1), (0.39, 1), (0.4, 2), (1.0, 5)):
        row = {"record": "sizes", "cost": {"samples": share, "training_s": 0.9, "seconds": 0.9}}
        assert recorded_sweep_page.by_chance(numbers, row) == drawn[count - 1]


def test_a_bar_tells_its_compute_what_measuring_adds_and_what_chance_finds() -> None:
    found = [one for one in recorded_sweep.bars(STORED) if one["number"] != "trials"]
    assert {one["number"] for one in found} == {"inside", "volume", "samples", "training_s"}
    for reached, cost in zip(found[::2], found[1::2], strict=True):
        assert reached["by_chance"] <= 1.0
        assert cost["with_measuring"] > cost["value"]
    page = recorded_sweep_page.page(STORED)
    assert "| curricula | no | 1 | training | <= 40% | 35.1% |  | 35.9% |" in page
    assert "| sizes | no | 1 | inside | >= 95% | 100.0% | 34.4% |  |" in page


def test_the_page_is_that_of_its_numbers() -> None:
    assert recorded_sweep_page.PAGE.read_text() == recorded_sweep_page.page(STORED)
