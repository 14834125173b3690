"""Committed results reach their bars, and belong to the recipes of today."""

import copy
import functools
import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.benchmarks import (
    budgets,
    canary_drift,
    captions,
    digits,
    engine_speed,
    fair_stopping,
    fair_stopping_page,
    few_steps,
    guardian,
    http_guard,
    learning,
    learning_digits,
    learning_page,
    mean_collapse,
    mean_collapse_page,
    method_cost,
    method_cost_page,
    planar,
    population,
    ray_overhead,
    recorded_sweep,
    sampling_speed,
    serving,
    serving_faults,
    serving_fuzz,
    serving_page,
    serving_soak,
    step_time,
    sweep_occupancy,
    sweep_overhead,
    sweep_restart,
    tournament,
    tournament_page,
    training,
)
from onestep.benchmarks.misses import is_explained
from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.benchmarks.recipes import (
    DIGITS,
    PAIRS,
    PLANE,
    SHORTER,
    TRAINING,
    Made,
    digest,
    digest_of,
    own_stages,
    recipes,
    sequence,
)
from onestep.benchmarks.record import Bars, processors, recipe_of
from onestep.methods.core.sampler_choice import sampler_for
from onestep.methods.core.schedule import Constant
from onestep.methods.core.times import SortedTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.platform.configuration import compose
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import parts_of

RESULTS: Final = Path(__file__).parent.parent / "benchmarks" / "results"
METHODS: Final = RESULTS.parent.parent / "methods" / "conf" / "method"
BARS: Final[dict[str, Callable[[Any], Bars]]] = {
    "fair_stopping": fair_stopping.bars,
    "few_steps": few_steps.bars,
    "guardian": guardian.bars,
    "http_guard": http_guard.bars,
    "mean_collapse": mean_collapse.bars,
    "method_cost": method_cost.bars,
    "population": population.bars,
    "ray_overhead": ray_overhead.bars,
    "recorded_sweep": recorded_sweep.bars,
    "sampling_speed": sampling_speed.bars,
    "canary_drift": canary_drift.bars,
    "engine_speed": engine_speed.bars,
    "serving": serving.bars,
    "serving_faults": serving_faults.bars,
    "serving_fuzz": serving_fuzz.bars,
    "serving_soak": serving_soak.bars,
    "step_time": step_time.bars,
    "sweep_occupancy": sweep_occupancy.bars,
    "sweep_overhead": sweep_overhead.bars,
    "sweep_restart": sweep_restart.bars,
    "budgets": budgets.bars,
    "captions": captions.bars,
}
MAY_MISS: Final = {
    *serving_page.NAMES,
    "tournament",
}
MAY_LACK: Final = {"serving_soak"}
"""What the page of its results then says was not run."""
STORED: Final = sorted(path.stem for path in RESULTS.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """What a benchmark has stored."""
    stored: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return stored


def recipe_today(*overrides: str) -> dict[str, Any]:
    return recipe_of(Experiment.from_dict(compose("train", list(overrides))))


def test_no_result_goes_unjudged() -> None:
    assert set(STORED) <= {*BARS, "digits", "learning", "learning_digits", "planar", "tournament"}
    assert {
        *({*BARS} - MAY_LACK),
        *("digits", "learning", "learning_digits", "planar", "tournament"),
    } <= set(STORED)


@pytest.mark.parametrize("name", sorted({*STORED} - MAY_MISS))
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
    assert step_time.MOST == {
        "exact_ratio": 1.3,
        "recommended_ratio": 1.2,
        "exact_memory_ratio": 1.2,
        "recommended_memory_ratio": 1.2,
    }
    assert ray_overhead.LEAST == 0.95
    assert (sweep_overhead.TRIALS, sweep_overhead.MOST_MS) == (1000, 50.0)
    assert sweep_overhead.MOST_BYTES == 2**30
    assert (sweep_occupancy.MOST_S, sweep_occupancy.LEAST_BUSY) == (3.0, 0.9)
    assert sweep_restart.MOST_S == 20.0
    assert sampling_speed.LEAST == 40.0
    assert max(http_guard.MOST_US.values()) == 400.0
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


def test_a_recipe_near_its_bar_was_trained_with_several_seeds() -> None:
    stored = read("planar")
    for name, result in stored["recipes"].items():
        seeds = [each["seed"] for each in result.get("other_seeds", ())]
        assert tuple(seeds) == planar.OTHER_SEEDS.get(name, ())


def test_each_seed_has_to_reach_the_bar_on_the_plane() -> None:
    stored = read("planar")["recipes"]
    own, bar = stored["checkerboard_shortcut"], planar.BARS["w2_over_flow_matching"]
    yardstick = stored["checkerboard_flow_matching"]["model"]["w2"]

    def verdict(*others: dict[str, Any]) -> dict[str, Any]:
        shortcut = {**own, "other_seeds": list(others)}
        return planar.verdicts({**stored, "checkerboard_shortcut": shortcut})[
            "checkerboard_shortcut"
        ]

    good = {"seed": 1, "core_s": 200.0, "model": {"w2": yardstick}}
    worse = {"seed": 2, "core_s": 200.0, "model": {"w2": 1.01 * bar * yardstick}}
    slow = {**good, "core_s": 1.01 * planar.BARS["core_s"]}
    alone = verdict()["w2_over_flow_matching"]
    found = verdict(good)
    assert (found["w2"], found["core_s"]) == (True, True)
    assert found["w2_of_each_seed"] == [alone, 1.0]
    assert found["w2_over_flow_matching"] == pytest.approx((alone + 1.0) / 2, abs=1e-3)
    assert found["w2_spread"] == pytest.approx((alone - 1.0) / 2**0.5, abs=1e-3)
    assert verdict(good, worse)["w2"] is False
    assert verdict(good, slow)["core_s"] is False


def test_a_method_on_the_checkerboard_has_the_network_and_samples_of_flow_matching() -> None:
    stored = copy.deepcopy(read("planar")["recipes"])
    own = stored["checkerboard_shortcut"]

    def said(name: str) -> Any:
        return planar.verdicts(stored)["checkerboard_shortcut"][name]

    assert said("as_flow_matching") is True
    assert said("one_gaussian_fails") is True
    own["recipe"]["training"]["samples"] *= 2
    own["one_gaussian"]["w2"] = stored["checkerboard_flow_matching"]["model"]["w2"]
    assert said("as_flow_matching") is False
    assert said("one_gaussian_fails") is False


@pytest.mark.parametrize("dataset", [PLANE, DIGITS])
def test_every_method_has_a_recipe(dataset: str) -> None:
    assert {path.stem for path in METHODS.glob("*.yaml")} <= set(recipes(dataset))


@functools.cache
def digest_today(recipe: str, common: tuple[str, ...] = (), *, dataset: str = PLANE) -> str:
    """What decides the result of a recipe today, composed once for all that ask."""
    return digest(recipe, common, dataset=dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [(dataset, recipe) for dataset in (PLANE, DIGITS) for recipe in recipes(dataset)],
)
def test_every_recipe_can_be_trained_from_nothing(dataset: str, recipe: str) -> None:
    assert sequence(recipe, dataset=dataset).check()


def test_what_learns_on_the_plane_is_the_recipe_of_today_or_says_why_it_misses() -> None:
    stored = read("learning")
    assert list(stored["recipes"]) == recipes()
    for name, each in stored["recipes"].items():
        assert each["digest"] == digest_today(name, SHORTER.get(name, ()))
        assert {*learning.missed(each)} == stored["misses"].get(name, {}).keys()
    assert is_explained(stored["misses"])
    assert learning.missed(stored["training_data"]) == []
    assert learning.missed(stored["one_gaussian"])


@pytest.mark.parametrize(("name", "dataset"), [("learning", PLANE), ("learning_digits", DIGITS)])
def test_the_time_of_a_recipe_is_that_of_its_own_stages(name: str, dataset: str) -> None:
    for recipe, each in read(name)["recipes"].items():
        own = own_stages(sequence(recipe, dataset=dataset).stages)
        took = sum(each["core_s_of_stages"][stage][TRAINING] for stage in own)
        assert each["core_s"] == pytest.approx(took, abs=0.1), recipe


def test_weights_that_a_method_begins_from_are_no_teacher() -> None:
    tuned = sequence("easy_consistency_tuning", dataset=DIGITS).stages
    taught = sequence("continuous_distillation", dataset=DIGITS).stages
    assert own_stages(tuned) == ["teacher", "student"]
    assert own_stages(taught) == ["student"]


def test_what_learns_digits_is_the_recipe_of_today_or_says_why_it_misses() -> None:
    stored = read("learning_digits")
    measured = list(stored["recipes"])
    assert measured == [name for name in recipes(DIGITS) if name in measured]
    assert stored["missing"] == [name for name in recipes(DIGITS) if name not in measured]
    for name, each in stored["recipes"].items():
        assert each["digest"] == digest_today(name, dataset=DIGITS)
        assert {*learning_digits.missed(each)} == stored["misses"].get(name, {}).keys()
        gaussian = {"accuracy": each["gaussian"], "deviation": each["deviation_of_gaussian"]}
        assert {*learning_digits.missed({**each, **gaussian})} >= {"accuracy", "deviation"}
    assert is_explained(stored["misses"])


@pytest.mark.parametrize("name", ["minibatch_neural_flow", "loom_neural_flow"])
def test_a_coupling_of_finitely_many_noises_or_of_a_batch_does_not_learn_digits(name: str) -> None:
    found = read("learning_digits")["recipes"].get(name)
    assert found is not None, "it is not left out"
    assert "accuracy" in learning_digits.missed(found)


def test_two_couplings_that_fail_differ_in_the_coupling_alone() -> None:
    one = recipe_today("experiment=digits_loom_neural_flow")
    other = recipe_today("experiment=digits_minibatch_neural_flow")
    assert other["method"].pop("coupling")["_target_"].endswith(".MinibatchOTCoupling")
    assert one["method"].pop("coupling")["_target_"].endswith(".Loom")
    assert one == other


@pytest.mark.parametrize(
    ("name", "nfes"), [("flow_matching", (1, 50)), ("edm", (2, 50)), ("ddpm", (2, 50))]
)
def test_a_teacher_of_digits_is_evaluated_in_one_step_too(name: str, nfes: tuple[int, int]) -> None:
    """Two evaluations where a denoising leads from the end of its times to the data."""
    experiment = Experiment.from_dict(compose("train", [f"experiment=digits_{name}"]))
    assert experiment.evaluation.nfes == nfes
    assert all(sampler_for(parts_of(experiment).learner.domain, nfe) for nfe in nfes)
    assert nfes[0] == 1 or sampler_for(parts_of(experiment).learner.domain, 1) is None


def test_the_page_tells_one_step_of_what_is_judged_at_many() -> None:
    row = {
        "nfe": 50,
        "accuracy": 0.55,
        "interval": [0.5, 0.6],
        "floor": 0.5,
        "gaussian": 0.7,
        "deviation": 0.1,
        "deviation_of_gaussian": 0.2,
        "core_s": 1.0,
        "core_s_of_stages": {},
        "machine": {"cpu": "one"},
        "metrics": {"eval/1nn_accuracy/nfe_50": 0.55, "eval/1nn_accuracy/nfe_2": 0.97},
    }
    one = {**row, "nfe": 1, "metrics": {"eval/1nn_accuracy/nfe_1": 0.55}}
    bars = {**learning_digits.MOST, "core_s": 1200.0}
    found = {"bars": bars, "misses": {}, "missing": [], "recipes": {"edm": row, "mean_flow": one}}
    page = learning_page.page(None, found)
    assert "edm 0.970 (2 NFE)." in page
    assert "many evaluations" not in learning_page.page(None, {**found, "recipes": {"one": one}})


DIGITS_LEARNED: Final = {
    "accuracy": 0.5,
    "deviation": 0.1,
    "deviation_of_gaussian": 0.2,
    "core_s": 1.0,
}


def test_an_excuse_holds_no_further_than_it_says() -> None:
    within, beyond = ({**DIGITS_LEARNED, "accuracy": accuracy} for accuracy in (0.66, 0.67))
    assert is_explained(learning_digits.misses({"dmd2": within}))
    assert not is_explained(learning_digits.misses({"dmd2": beyond}))
    assert not is_explained(learning_digits.misses({"mean_flow": within}))


def test_noise_on_top_of_data_has_not_learned_them() -> None:
    assert learning_digits.missed(DIGITS_LEARNED) == []
    assert learning_digits.missed({**DIGITS_LEARNED, "deviation": 0.3}) == ["deviation"]


GOOD: Final = {**learning.MOST, **learning.LEAST, **DIGITS_LEARNED, "stages": 1}


def test_on_the_plane_some_recipes_alone_reach_nothing() -> None:
    names = recipes()
    assert learning.judged(dict.fromkeys(names, GOOD), {})["reached"] is True
    assert learning.judged(dict.fromkeys(names[1:], GOOD), {})["reached"] is False


def test_the_page_names_the_recipes_that_were_not_trained_on_digits() -> None:
    """Hours of training come in parts."""
    first, *names = recipes(DIGITS)
    row = {**GOOD, "nfe": 1, "interval": [0.5, 0.5], "floor": 0.5, "gaussian": 0.7}
    row |= {"core_s_of_stages": {}, "metrics": {"eval/1nn_accuracy/nfe_1": 0.5}}
    row |= {"machine": {"cpu": "one"}}
    found = learning_digits.judged(dict.fromkeys(names, row))
    assert found["missing"] == [first]
    assert found["reached"] is False
    assert f"Not trained yet: {first}." in learning_page.page(None, found)
    assert "Not trained yet" not in learning_page.page(None, {**found, "missing": []})


def test_the_cost_of_every_method_was_measured() -> None:
    assert list(read("method_cost")["methods"]) == method_cost.METHODS


def test_the_page_of_the_tournament_is_that_of_its_numbers() -> None:
    stored = read("tournament")["sets"]
    assert list(stored) == [name for name in tournament.SETS if name in stored]
    assert tournament_page.PAGE.read_text() == tournament_page.page(stored)


def test_the_page_of_the_tournament_names_the_sets_that_are_missing() -> None:
    """Hours of training come in parts."""
    text = tournament_page.page({})
    assert "Not run: eight_gaussians, checkerboard, digits, mnist, fashion_mnist, cifar10." in text


@pytest.mark.parametrize("real", [False, True])
def test_a_recipe_is_stretched_to_its_seconds(real: bool) -> None:
    """A pilot of a twentieth took 1 s of training and 2 s for 500 pairs, or also those of data."""
    seconds = 30.0
    data = len(EightGaussians().load().train)
    overrides = ["data=eight_gaussians", "pairs.count=500", f"pairs.real={str(real).lower()}"]
    experiment = Experiment.from_dict(compose("train", overrides))
    took = {TRAINING: 1.0, PAIRS: 2.0 * (500 + data) / 500 if real else 2.0}
    made = Made(experiment=experiment, trained=None, core_s=took)  # type: ignore[arg-type]
    stays = 2.0 * data / 500 if real else 0.0
    assert tournament.factor_for(seconds + stays, {"student": made}, 0.05) == pytest.approx(0.5)
    if real:
        with pytest.raises(ValueError, match="pairs of the data alone take"):
            tournament.factor_for(stays, {"student": made}, 0.05)


@pytest.mark.parametrize(
    ("took", "factors", "kept"),
    [
        ([30.0], [3.0], 3.0),  # at once
        ([40.0, 32.0], [3.0, 2.25], 2.25),  # the machine was slow at first
        ([60.0, 10.0, 20.0], [3.0, 1.5, 4.5], 4.5),  # and then never the same: the nearest
    ],
)
def test_what_took_too_long_is_trained_again(
    took: list[float], factors: list[float], kept: float
) -> None:
    tried: list[float] = []
    experiment = Experiment.from_dict(compose("train", ["data=eight_gaussians"]))

    def make(factor: float) -> dict[str, Made]:
        tried.append(factor)
        core_s = {TRAINING: took[len(tried) - 1]}
        made = Made(experiment=experiment, trained=None, core_s=core_s)  # type: ignore[arg-type]
        return {"student": made}

    _, factor = tournament.in_time(make, 3.0, seconds=30.0)
    assert tried == pytest.approx(factors)
    assert factor == pytest.approx(kept)


FOUGHT: Final = sorted(read("tournament")["sets"])


def fought(
    recipe: str, value: float, low: float, high: float, *, floor: float = 0.0, core_s: float = 30.0
) -> dict[str, Any]:
    one = {"name": "eval/w2", "nfe": 1, "value": value, "interval": [low, high], "floor": floor}
    return {"recipe": recipe, "core_s": core_s, "report": {"measurements": [one]}}


@pytest.mark.parametrize(("floor", "best"), [(0.0, {"a", "b"}), (0.25, {"a", "b", "c"})])
def test_who_lies_within_the_brackets_of_the_best_or_at_the_floor_is_as_good(
    floor: float, best: set[str]
) -> None:
    results = [
        fought("a", 0.1, 0.08, 0.12, floor=floor),
        fought("a", 0.2, 0.18, 0.22, floor=floor),
        fought("b", 0.21, 0.19, 0.23, floor=floor),
        fought("c", 0.25, 0.05, 0.45, floor=floor),  # so wide that it could be anything
        fought("d", 0.5, 0.45, 0.55, floor=floor),
    ]
    found = {"seconds": 30.0, "results": results}
    assert tournament_page._best(found, "eval/w2", 1) == best


def test_who_took_more_than_its_seconds_is_nowhere_the_best() -> None:
    long = 30.0 * (1.01 + tournament_page.TOLERANCE)
    results = [
        fought("a", 0.1, 0.08, 0.12),
        fought("a", 0.1, 0.08, 0.12, core_s=long),
        fought("b", 0.2, 0.18, 0.22),
    ]
    found = {"seconds": 30.0, "results": results}
    assert tournament_page._best(found, "eval/w2", 1) == {"b"}
    assert tournament_page._good(found, "eval/w2", 1) == {"a", "b"}
    winners = tournament_page._winners({"eight_gaussians": found})
    assert "| a | *1* |" in winners
    assert "| b | 1 |" in winners


@pytest.mark.parametrize("name", FOUGHT)
def test_what_competed_on_a_set_had_one_processor(name: str) -> None:
    results = read("tournament")["sets"][name]["results"]
    assert len({each["machine"]["cpu"] for each in results}) == 1


def test_the_processor_of_most_is_named_first() -> None:
    rows = {name: {"machine": {"cpu": cpu}} for name, cpu in zip("abc", "xyy", strict=True)}
    assert processors(rows) == "y; x: a"


@pytest.mark.parametrize("name", FOUGHT)
def test_every_recipe_has_competed_with_every_seed_or_is_named_as_missing(name: str) -> None:
    stored = read("tournament")["sets"][name]
    results, missing = stored["results"], stored["missing"]
    seeds = sorted({each["seed"] for each in results})
    found = sorted((each["recipe"], each["seed"]) for each in results)
    known = recipes(tournament.SETS[name][0])
    assert found == list(itertools.product([one for one in known if one not in missing], seeds))
    assert missing == [one for one in known if one in missing], "only those that are left out"
    assert len(seeds) > 1, "its spread is that of its seeds"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name != PLANE else name for name in FOUGHT],
)
def test_what_competed_is_the_recipe_of_today(name: str) -> None:
    for each in read("tournament")["sets"][name]["results"]:
        overrides = tournament.overrides_of(each["recipe"], name)
        decisive = tuple(line for line in overrides if not line.startswith("evaluation."))
        today = digest_today(each["recipe"], decisive, dataset=tournament.SETS[name][0])
        assert each["digest"] == today, each["recipe"]


def test_the_page_of_what_a_step_costs_is_that_of_its_numbers() -> None:
    page = method_cost_page.page(read("method_cost"), read("step_time"))
    assert method_cost_page.PAGE.read_text() == page


def test_the_page_tells_what_derivatives_cost_and_which_miss_their_bar() -> None:
    stored = read("step_time")
    good, case = stored["cases"][:2]
    slow = {**case, "recommended_ratio": 1.301, "recommended_error": 0.0042}
    cases = {"cases": [good, slow]}
    page = method_cost_page.page(
        read("method_cost"), {**stored, **cases, "bars": step_time.bars(cases)}
    )
    rows = {network: line for line in page.splitlines() if (network := line.split(" | ")[0][2:])}
    low, _, high = case["quartiles_recommended"]
    assert f"| **1.30** [{low:.2f}, {high:.2f}] | 1.00 | 4e-03 |" in rows[slow["network"]]
    assert "**" not in rows[good["network"]]


def test_the_page_of_what_is_learned_is_that_of_its_numbers() -> None:
    want = learning_page.page(read("learning"), read("learning_digits"))
    assert learning_page.PAGE.read_text() == want


@pytest.mark.parametrize("trial", mean_collapse.TRIALS)
def test_the_collapse_was_seen_on_the_recipe_of_today(trial: str) -> None:
    stored = read("mean_collapse")["trials"][trial]
    assert stored["digest"] == digest_of(mean_collapse.stages(trial))


def test_the_page_of_serving_says_what_was_not_run_and_has_the_bars_of_what_was() -> None:
    others = {name: each for name, each in serving_page.stored().items() if name != "serving_soak"}
    assert "| serving_soak |  | not run |" in serving_page.page(others)
    soak = {"minutes": 30.0, "requests": 9, "failed": 0, "growth": 0.031}
    soak["bars"] = serving_soak.bars({**soak, "answered_by": {"digits/1": 5, "digits/2": 4}})
    assert [bar["reached"] for bar in soak["bars"]] == [True, False, True, True]
    explained = {**others, "serving_soak": {**soak, "bars": [soak["bars"][0], soak["bars"][3]]}}
    page = serving_page.page(explained)
    assert "not run" not in page
    assert "in 30 minutes 0 of 9 fail, and the memory of all processes grows by 3.1%" in page
    assert "| serving_soak | share_of_each_version | 0.444 | >= 0.25 |" in page


@pytest.mark.parametrize("peer", [serving.LIT, serving.BENTO])
def test_as_much_as_a_peer_is_not_more(peer: str) -> None:
    stored = read("serving")
    ours = stored["of_the_engine"][serving.HAPROXY]
    for median, reached in ((ours["median"], False), (0.9 * ours["median"], True)):
        shares = {**stored["of_the_engine"], peer: {**ours, "median": median}}
        bars = serving.bars({**stored, "of_the_engine": shares})
        found = {bar["number"]: bar["reached"] for bar in bars}
        assert found[f"of_{peer.lower()}"] is reached


def test_the_page_of_serving_is_that_of_its_numbers_and_explains_what_is_missed() -> None:
    found = serving_page.stored()
    assert serving_page.PAGE.read_text() == serving_page.page(found)
    assert is_explained(serving_page.misses(found))


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


def test_captions_were_obeyed_by_the_recipe_of_today() -> None:
    stored = read("captions")
    assert stored["digest"] == digest(captions.RECIPE, captions.SHORT, dataset=captions.DATASET)
    assert captions.PAGE.read_text() == captions.page(stored)


def test_the_bars_of_captions_refuse_one_class_for_all_and_a_caption_that_is_not_read() -> None:
    stored = read("captions")
    step = stored["stages"][captions.STEP]
    for wrong in ({"agreement": step["shuffled"]}, {"shuffled": step["agreement"]}):
        stages = {**stored["stages"], captions.STEP: {**step, **wrong}}
        assert not all(bar["reached"] for bar in captions.bars({**stored, "stages": stages}))


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


@pytest.mark.parametrize("module", [few_steps, ray_overhead], ids=["few_steps", "ray_overhead"])
def test_what_was_timed_or_tried_is_the_experiment_of_today(module: Any) -> None:
    assert read(module.__name__.rsplit(".", 1)[1])["overrides"] == module.OVERRIDES


def test_the_lower_end_of_the_throughput_under_ray_is_judged() -> None:
    ratios = [0.90, 0.94, 0.96, *[1.0] * 7, 1.2, 1.3]
    low, high = ray_overhead.interval(ratios[::-1])
    assert (low, high) == (0.96, 1.0)
    assert len(ratios) == ray_overhead.ROUNDS
    numbers = {"median_ratio": 1.0, "interval": [low, high]}
    assert [bar["reached"] for bar in ray_overhead.bars(numbers)] == [True]
    noisy = {"median_ratio": 1.0, "interval": [0.94, high]}
    assert [bar["reached"] for bar in ray_overhead.bars(noisy)] == [False]


def test_the_interval_of_a_median_holds_it_nineteen_times_in_twenty() -> None:
    n, outer = ray_overhead.ROUNDS, ray_overhead.OUTER
    assert 1 - 2 * sum(math.comb(n, k) for k in range(outer + 1)) / 2**n >= 0.95


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


def test_the_memory_of_a_step_is_measured_and_judged() -> None:
    """Two forward passes of all rows would hold nearly twice that of one."""
    net, _ = step_time.network("mlp", (2,))
    batch = step_time.noise((2,), rows=512)
    method = MeanFlow(times=SortedTimes(diagonal=Constant(value=step_time.DIAGONAL)))
    taken = step_time.memory(method, net, batch)
    assert 1.0 <= taken / step_time.memory(FlowMatching(), net, batch) <= 1.2
    case = {"network": "mlp", **step_time.MOST}
    for name, most in step_time.MOST.items():
        good = step_time.bars({"cases": [case]})
        bad = step_time.bars({"cases": [{**case, name: 1.01 * most}]})
        assert [bar["reached"] for bar in good] == [True] * 4
        assert sorted(bar["reached"] for bar in bad) == [False, True, True, True]


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
    hold = "x = b'1' * (100 << 20); print('held', flush=True); import time; time.sleep(5)"
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
    assert found["seconds"] >= 5.0
    verdicts = budgets.bars({"commands": {"demo": found}})
    assert [bar["reached"] for bar in verdicts] == [False, True, True]


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
