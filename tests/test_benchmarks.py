"""Committed results reach their bars, and belong to the recipes of today."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.benchmarks import (
    budgets,
    digits,
    few_steps,
    learning,
    learning_digits,
    learning_page,
    mean_collapse,
    mean_collapse_page,
    method_cost,
    planar,
    ray_overhead,
    sampling_speed,
    step_time,
    training,
)
from onestep.benchmarks.misses import is_explained
from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.benchmarks.recipes import DIGITS, PLANE, digest, digest_of, recipes, sequence
from onestep.benchmarks.record import Bars, recipe_of
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment

RESULTS: Final = Path(__file__).parent.parent / "benchmarks" / "results"
METHODS: Final = RESULTS.parent.parent / "methods" / "conf" / "method"
BARS: Final[dict[str, Callable[[Any], Bars]]] = {
    "few_steps": few_steps.bars,
    "mean_collapse": mean_collapse.bars,
    "method_cost": method_cost.bars,
    "ray_overhead": ray_overhead.bars,
    "sampling_speed": sampling_speed.bars,
    "step_time": step_time.bars,
    "budgets": budgets.bars,
}
STORED: Final = sorted(path.stem for path in RESULTS.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """What a benchmark has stored."""
    stored: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return stored


def recipe_today(*overrides: str) -> dict[str, Any]:
    return recipe_of(Experiment.from_dict(compose("train", list(overrides))))


def test_no_result_goes_unjudged() -> None:
    assert set(STORED) <= {*BARS, "digits", "learning", "learning_digits", "planar", "tournament"}
    assert {*BARS, "digits", "planar"} - {"method_cost"} <= set(STORED)


@pytest.mark.parametrize("name", sorted({*STORED} - {"tournament"}))
def test_every_bar_is_reached(name: str) -> None:
    assert read(name)["reached"] is True


def revisions(result: Any) -> list[str]:
    """Of what code the parts of a result are."""
    if isinstance(result, list):
        return [found for part in result for found in revisions(part)]
    if not isinstance(result, dict):
        return []
    own = [result["machine"]["revision"]] if "machine" in result else []
    return own + [found for part in result.values() for found in revisions(part)]


@pytest.mark.parametrize("name", STORED)
def test_a_result_is_of_code_that_was_committed(name: str) -> None:
    found = revisions(read(name))
    assert found
    assert all(re.fullmatch(r"[0-9a-f]{40}", revision) for revision in found), found


@pytest.mark.parametrize("name", [name for name in STORED if name in BARS])
def test_the_verdicts_are_those_of_the_bars_of_today(name: str) -> None:
    stored = read(name)
    assert stored["bars"] == BARS[name](stored)
    assert stored["bars"]
    assert stored["reached"] is all(bar["reached"] for bar in stored["bars"])


def test_the_bars_are_those_that_the_platform_has_to_reach() -> None:
    assert step_time.MOST == {"exact_ratio": 1.3, "recommended_ratio": 1.2}
    assert ray_overhead.LEAST == 0.95
    assert sampling_speed.LEAST == 40.0
    assert digits.AT_MOST == {("eval/1nn_accuracy", 1): 0.62, ("eval/1nn_accuracy", 2): 0.59}
    assert digits.AT_MOST_FLOORS == {("eval/sliced_w2", 1): 1.4, ("eval/sliced_w2", 2): 1.15}
    assert set(digits.AT_LEAST.values()) == {0.98}
    assert read("planar")["bars"] == planar.BARS


def test_the_digits_were_learned_by_the_recipe_of_today_within_the_budget() -> None:
    stored = read("digits")
    assert stored["recipe"] == recipe_today(*stored["overrides"])
    assert stored["within_budget"] is True
    assert stored["baselines_that_reach_all"] == []
    judged = [digits.verdict(row) for row in stored["measurements"] if digits.is_barred(row)]
    assert stored["bars"] == judged
    assert stored["reached"] is all(bar["reached"] for bar in judged)


@pytest.mark.parametrize("recipe", planar.RECIPES)
def test_the_plane_was_learned_by_the_recipe_of_today(recipe: str) -> None:
    assert read("planar")["recipes"][recipe]["recipe"] == recipe_today(f"experiment={recipe}")


def test_the_verdicts_on_the_plane_are_those_of_its_numbers() -> None:
    stored = read("planar")
    assert stored["verdicts"] == planar.verdicts(stored["recipes"])
    assert stored["reached"] is planar.reached(stored["verdicts"])


@pytest.mark.parametrize("dataset", [PLANE, DIGITS])
def test_every_method_has_a_recipe(dataset: str) -> None:
    assert {path.stem for path in METHODS.glob("*.yaml")} <= set(recipes(dataset))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [(dataset, recipe) for dataset in (PLANE, DIGITS) for recipe in recipes(dataset)],
)
def test_every_recipe_can_be_trained_from_nothing(dataset: str, recipe: str) -> None:
    assert sequence(recipe, dataset=dataset).check()


@pytest.mark.skipif("learning" not in STORED, reason="benchmarks/learning.py has not been run")
def test_what_learns_on_the_plane_is_the_recipe_of_today_or_says_why_it_misses() -> None:
    stored = read("learning")
    for name, each in stored["recipes"].items():
        assert each["digest"] == digest(name)
        assert {*learning.missed(each)} == stored["misses"].get(name, {}).keys()
    assert is_explained(stored["misses"])
    assert learning.missed(stored["training_data"]) == []
    assert learning.missed(stored["one_gaussian"])


@pytest.mark.skipif("learning_digits" not in STORED, reason="learning_digits.py has not been run")
def test_what_learns_digits_is_the_recipe_of_today_or_says_why_it_misses() -> None:
    stored = read("learning_digits")
    for name, each in stored["recipes"].items():
        assert each["digest"] == digest(name, dataset=DIGITS)
        assert {*learning_digits.missed(each)} == stored["misses"].get(name, {}).keys()
        assert each["gaussian"] > learning_digits.MOST
    assert is_explained(stored["misses"])


@pytest.mark.skipif("learning" not in STORED, reason="benchmarks/learning.py has not been run")
def test_the_page_of_what_is_learned_is_that_of_its_numbers() -> None:
    digits = read("learning_digits") if "learning_digits" in STORED else None
    assert learning_page.PAGE.read_text() == learning_page.page(read("learning"), digits)


@pytest.mark.parametrize("trial", mean_collapse.TRIALS)
def test_the_collapse_was_seen_on_the_recipe_of_today(trial: str) -> None:
    stored = read("mean_collapse")["trials"][trial]
    assert stored["digest"] == digest_of(mean_collapse.stages(trial))


def test_the_page_of_the_collapse_is_that_of_its_numbers() -> None:
    assert mean_collapse_page.PAGE.read_text() == mean_collapse_page.page(read("mean_collapse"))


def test_the_bars_of_the_collapse_refuse_a_collapse_that_is_cured_and_a_cure_that_is_none() -> None:
    stored = read("mean_collapse")
    trials = stored["trials"]
    cured = {**trials, "independent": trials["loom"]}
    assert not all(bar["reached"] for bar in mean_collapse.bars({**stored, "trials": cured}))
    for name in set(trials) - {"independent"}:
        lost = {**trials, name: trials["independent"]}
        assert not all(bar["reached"] for bar in mean_collapse.bars({**stored, "trials": lost}))


@pytest.mark.parametrize("module", [few_steps, ray_overhead], ids=["few_steps", "ray_overhead"])
def test_what_was_timed_or_tried_is_the_experiment_of_today(module: Any) -> None:
    assert read(module.__name__.rsplit(".", 1)[1])["overrides"] == module.OVERRIDES


def test_a_benchmark_trains_in_this_process() -> None:
    tiny = ("data=moons", "net=mlp", "net.width=16", "training.samples=512", "training.threads=1")
    trained = training.train(tiny)
    assert trained.experiment.overrides == tiny
    assert trained.dataset.name == "moons"
    assert not trained.flow_map.training
    assert trained.core_s > 0.0


def test_every_method_has_a_predicted_cost() -> None:
    assert sorted(PREDICTIONS) == method_cost.METHODS


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_says_what_it_counts_and_an_excess_why(name: str) -> None:
    prediction = PREDICTIONS[name]
    assert prediction.reason
    assert bool(prediction.excess) is (prediction.allowed > 1.15)
    assert prediction.allowed >= 1.15
    assert prediction.ratio(0.25) >= 1.0


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("easy_consistency_tuning", 4 / 3),  # 2F + B
        ("consistency_distillation", 6 / 3),  # 2F + B + 2 teacher
        ("progressive_distillation", 5 / 3),  # F + B + 2 teacher
        ("continuous_consistency", 5 / 3),  # F (JVP 2F) + B, and the forward of the value
        ("mean_flow", 3.5 / 3),
    ],
)
def test_predictions_are_those_of_the_cards(name: str, ratio: float) -> None:
    assert PREDICTIONS[name].ratio(0.25) == pytest.approx(ratio)


def test_a_cost_above_its_prediction_misses_its_bar() -> None:
    row = {"off_share": 0.25, "ratio": 3.5 / 3 * 1.14}
    good = method_cost.bars({"methods": {"mean_flow": row}})
    bad = method_cost.bars({"methods": {"mean_flow": {**row, "ratio": 3.5 / 3 * 1.16}}})
    assert [bar["reached"] for bar in (*good, *bad)] == [True, False]


def test_a_method_is_measured_over_a_cycle_of_its_players_at_its_own_share() -> None:
    game, flow = method_cost.Turn("dmd2"), method_cost.Turn("mean_flow")
    assert (game.cycle, flow.cycle) == (5, 1)
    assert flow.off == 0.25
    assert method_cost.Turn("flow_map_matching").off == 1.0
    # Weights, an average and two moments; with a fake score, its moments and a teacher, twice that.
    assert game.held_bytes() == 2 * flow.held_bytes()
    assert flow.working_bytes() > 0


def test_a_budget_counts_the_whole_tree_of_processes_and_the_stages_that_are_told() -> None:
    """Its own 100 MiB, and 100 MiB of a process in a session of its own."""
    hold = "x = b'1' * (100 << 20); print('held', flush=True); import time; time.sleep(10)"
    script = f"""
import subprocess, sys
print("[1/1] holding, twice", flush=True)
own = [sys.executable, "-c", {hold!r}]
child = subprocess.Popen(own, start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
exec({hold!r})
child.wait()
print("  6 s, 6 s in all")
sys.exit(3)
"""
    found = budgets.measure([sys.executable, "-c", script])
    assert found["exit_status"] == 3
    assert found["stages"] == {"holding, twice": 6.0}
    assert 0.195 < found["peak_gib"] < 0.4
    assert found["seconds"] >= 10.0
    verdicts = budgets.bars({"commands": {"demo": found}})
    assert [bar["reached"] for bar in verdicts] == [False, True, True]
