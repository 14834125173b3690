"""Committed results reach their bars, and are of committed code."""

import math
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from onestep.benchmarks import (
    budgets,
    canary_drift,
    captions,
    digits,
    engine_speed,
    fair_stopping,
    few_steps,
    first_sweep,
    guardian,
    http_guard,
    mean_collapse,
    method_cost,
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
    training,
)
from onestep.benchmarks.record import Bars
from onestep.tests.benchmarks.stored import RESULTS, read

BARS: Final[dict[str, Callable[[Any], Bars]]] = {
    "fair_stopping": fair_stopping.bars,
    "few_steps": few_steps.bars,
    "first_sweep": first_sweep.bars,
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


def test_a_benchmark_trains_in_this_process() -> None:
    tiny = ("data=moons", "net=mlp", "net.width=16", "training.samples=512", "training.threads=1")
    trained = training.train(tiny)
    assert trained.experiment.overrides == tiny
    assert trained.dataset.name == "moons"
    assert not trained.flow_map.training
    assert trained.core_s > 0.0


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
