"""What was learned is what the recipes of today learn, or says why it misses its bars."""

import copy
from typing import Any, Final

import pytest

from onestep.benchmarks import digits, learning, learning_digits, learning_page, planar
from onestep.benchmarks.misses import is_explained
from onestep.benchmarks.recipes import (
    DIGITS,
    PLANE,
    SHORTER,
    TRAINING,
    own_stages,
    recipes,
    sequence,
)
from onestep.methods.core.sampler_choice import sampler_for
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import parts_of
from onestep.tests.benchmarks.stored import RESULTS, digest_today, read, recipe_today

METHODS: Final = RESULTS.parent.parent / "methods" / "conf" / "method"


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
    within, beyond = ({**DIGITS_LEARNED, "accuracy": accuracy} for accuracy in (0.72, 0.73))
    assert is_explained(learning_digits.misses({"short_mean_flow": within}))
    assert not is_explained(learning_digits.misses({"short_mean_flow": beyond}))
    assert not is_explained(learning_digits.misses({"mean_flow": within}))


@pytest.mark.parametrize("game", ["dmd2", "flow_generator_matching"])
def test_a_game_is_excused_by_what_a_quarter_of_its_steps_leaves(game: str) -> None:
    """The tournament has two seeds of each."""
    results = read("tournament")["sets"]["eight_gaussians"]["results"]
    short = [each for each in results if each["recipe"] == game]
    found = {
        name: [
            m["value"]
            for each in short
            for m in each["report"]["measurements"]
            if name in m["name"]
        ]
        for name in ("mode_std_ratio_min", "mode_std_ratio_max")
    }
    assert [0.2 < each["factor"] < 0.3 for each in short] == [True, True]
    assert all(1.3 < ratio < 1.65 for ratio in found["mode_std_ratio_min"])
    assert all(1.65 < ratio < 1.95 for ratio in found["mode_std_ratio_max"])


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


def test_the_page_of_what_is_learned_is_that_of_its_numbers() -> None:
    want = learning_page.page(read("learning"), read("learning_digits"))
    assert learning_page.PAGE.read_text() == want
