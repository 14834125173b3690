"""What sweeps were measured to reach."""

import copy
import json

import pytest

from onestep.benchmarks import (
    fair_stopping,
    fair_stopping_page,
    guardian,
    population,
    sweep_occupancy,
    sweep_restart,
)
from onestep.tests.benchmarks.stored import read


def test_the_page_of_fair_stopping_is_that_of_its_numbers() -> None:
    stored = read("fair_stopping")
    assert fair_stopping_page.PAGE.read_text() == fair_stopping_page.page(stored)


@pytest.mark.parametrize("family", fair_stopping.FAMILIES)
def test_what_stops_early_is_the_code_of_today(family: str) -> None:
    stored = read("fair_stopping")
    assert stored["budgets"] == list(fair_stopping.BUDGETS)
    assert stored["sweeps"] == fair_stopping.SWEEPS >= 200
    assert [*stored["families"]] == [*fair_stopping.FAMILIES]
    for seed, kept in enumerate(stored["families"][family]["first"]):
        again = fair_stopping.simulate(family, seed)
        for rule in fair_stopping.RULES:
            assert again[rule] == pytest.approx(kept[rule], rel=1e-9, abs=1e-12)


def test_the_bars_of_fair_stopping_refuse_rules_that_are_exchanged() -> None:
    stored = read("fair_stopping")
    for family in ("apart", "brief"):
        other = copy.deepcopy(stored)
        rules = other["families"][family]["rules"]
        rules["naive"], rules["fair"] = rules["fair"], rules["naive"]
        missed = [bar for bar in fair_stopping.bars(other) if not bar["reached"]]
        assert {(bar["family"], bar["number"]) for bar in missed} == {
            (family, "wrong"),
            (family, "refused"),
        }
    for family in ("together", "none"):
        other = copy.deepcopy(stored)
        other["families"][family]["rules"] = stored["families"]["apart"]["rules"]
        assert not all(bar["reached"] for bar in fair_stopping.bars(other))


def test_a_core_waits_from_the_end_of_a_trial_to_the_first_step_of_the_next_in_its_place() -> None:
    times = [(0.0, 1.0, 20.0), (0.0, 1.5, 30.0), (20.5, 22.0, 41.0), (31.0, 32.5, 50.0)]
    stamps = [{"begin": b, "first_step": s, "end": e} for b, s, e in times]
    found = sweep_occupancy.gaps(stamps)
    assert [one["gap_s"] for one in found] == [2.0, 2.5]
    assert [one["handed_over_s"] for one in found] == [0.5, 1.0]
    spent = {"wall_s": 50.0, "trials_s": 92.0}
    good = {"trials": [{}] * 8, "processes": 2, "gaps": found, "spent": spent}
    bad = {"gaps": [{"gap_s": 3.1}], "spent": {**spent, "trials_s": 89.0}, "processes": 3}
    assert sweep_occupancy.busy(spent) == 0.92
    assert all(bar["reached"] for bar in sweep_occupancy.bars(good))
    missed = [not bar["reached"] for bar in sweep_occupancy.bars({**good, **bad})]
    assert missed == [False, True, True, True]


def test_the_guardian_judges_the_stored_rounds_by_the_rule_of_today() -> None:
    stored = read("guardian")["runs"]
    assert list(stored) == list(guardian.runs())
    for name, run in stored.items():
        assert run["verdict"] == guardian.verdict(run), name
        asked = guardian.runs()[name]
        assert tuple(run["overrides"][: len(asked)]) == asked, name


def test_a_killed_sweep_is_judged_by_its_slowest_trial_and_by_what_it_lost() -> None:
    stored = read("sweep_restart")
    assert stored["command"] == list(sweep_restart.COMMAND)
    found = sweep_restart.summary(stored["rounds"], stored["trials"])
    assert {name: stored[name] for name in found} == found
    rounds = [{"seconds": {"0": 1.0, "1": 19.9}, "outlived_s": 1.0}] * sweep_restart.ROUNDS
    slow = [*rounds[1:], {"seconds": {"0": 1.0, "1": 20.1}, "outlived_s": 1.0}]
    for some, trials, misses in (
        (rounds, ["0", "1"], 0),
        (slow, ["0", "1"], 1),
        (rounds[1:], ["0", "1"], 1),
        (rounds, ["0", "1", "2"], 1),
    ):
        verdicts = sweep_restart.bars(sweep_restart.summary(some, trials))
        assert [bar["reached"] for bar in verdicts].count(False) == misses


def test_a_population_that_is_worse_than_members_side_by_side_is_seen() -> None:
    stored = read("population")
    assert sorted(stored["seeds"]) == [str(seed) for seed in population.SEEDS]
    seeds = json.loads(json.dumps(stored["seeds"]))
    for seed in seeds.values():
        assert len({way["samples"] for way in (seed[name] for name in population.WAYS)}) == 1
        seed["pbt"]["winner"] = 1.01 * seed["random"]["winner"]
    seeds["0"]["pb2"]["repeats"] = False
    verdicts = population.bars({**stored, "seeds": seeds})
    assert [bar["reached"] for bar in verdicts] == [False, True, False]


def test_a_core_that_waits_between_trials_is_seen() -> None:
    trials = [
        {"begin": 0.0, "first_step": 2.0, "end": 10.0},
        {"begin": 0.0, "first_step": 2.0, "end": 12.0},
        {"begin": 10.5, "first_step": 11.0, "end": 20.0},
        {"begin": 15.0, "first_step": 15.5, "end": 22.0},
    ]
    found = sweep_occupancy.gaps(trials)
    assert [gap["gap_s"] for gap in found] == [1.0, 3.5]
    stored = read("sweep_occupancy")
    verdicts = sweep_occupancy.bars({**stored, "gaps": found})
    assert [bar["number"] for bar in verdicts if not bar["reached"]] == [
        "seconds from a trial's end to the next one's first step"
    ]


def test_runs_that_the_guardian_calls_lost_have_learned_nothing() -> None:
    """A run that is called lost and would have come right is a false alarm, however it began."""
    stored = read("guardian")["runs"]
    ends = {name: run["verdict"]["end"] for name, run in stored.items()}
    lost = {name for name, run in stored.items() if run["verdict"]["lost_at"] is not None}
    for name in lost:
        twin = ends[name.partition(":")[0]]
        assert ends[name] is None or ends[name] > 2.0 * max(twin, 0.0) + 0.01, name
