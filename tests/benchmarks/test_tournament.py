"""The tournament: its page, its rules and who competed."""

import itertools
import sys
from typing import Any, Final

import pytest

from onestep.benchmarks import budgets, tournament, tournament_page
from onestep.benchmarks.recipes import PAIRS, PLANE, TRAINING, Made, recipes
from onestep.benchmarks.record import processors
from onestep.platform.configuration import compose
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import Experiment
from onestep.tests.benchmarks.stored import digest_today, read


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
