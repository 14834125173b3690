"""Which rounds of probes make a lost run."""

import math

import pytest

from onestep.platform.training.health import (
    LEAST_MOTION,
    LEAST_WIDTH,
    MOST,
    STARTED,
    TIMES,
    Health,
)

GOOD = {
    "one_step": 0.1,
    "many_steps": 0.05,
    "noise": 0.4,
    "motion": 0.5,
    "width": 1.0,
    "loss_online": 0.3,
}


def walked(*rounds: dict[str, float], progress: float = 0.0) -> Health:
    health = Health()
    for found in rounds:
        health = health.after(GOOD | found, progress=progress)
    return health


def test_a_run_that_stumbles_once_is_not_lost() -> None:
    bad = {"one_step": 9.0}
    assert walked(bad).fault == "guardian/one_step is 9, above 3"
    assert not walked(bad).is_lost
    assert not walked(bad, {}, bad).is_lost
    assert walked({}, bad, bad).is_lost
    assert not walked(bad, {}).fault


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_final_in_one_round(value: float) -> None:
    assert walked({}, {"composition": value}).is_lost


@pytest.mark.parametrize("name", sorted(MOST))
def test_each_bound_holds_on_its_own(name: str) -> None:
    at, above = {name: MOST[name]}, {name: 1.001 * MOST[name]}
    assert not walked(at, at).fault
    assert walked(above, above).is_lost


def test_a_loss_is_compared_with_the_largest_of_the_healthy_rounds() -> None:
    low, high = {"loss_online": -0.1}, {"loss_online": 2.0}
    assert not walked(low, {"loss_online": 0.1 * TIMES}).fault
    burst = {"loss_online": -0.11 * TIMES}
    only_low = Health().after({**GOOD, **low}, progress=0.0)
    first = only_low.after({**GOOD, **burst}, progress=0.0)
    assert first.fault == "guardian/loss_online is -11, above 100 times 0.1 before"
    assert first.largest == {"loss_online": 0.1}, "a burst is no measure for the next round"
    assert first.after({**GOOD, **burst}, progress=0.0).is_lost
    assert not walked(low, high, low, burst, burst).fault
    assert not Health().after({**GOOD, **burst}, progress=0.0).fault, "there is nothing before"


def test_a_map_has_to_begin_only_after_a_while() -> None:
    still = {"motion": 0.99 * LEAST_MOTION}
    assert walked(still, still, progress=STARTED).is_lost
    assert not walked(still, still, progress=0.99 * STARTED).fault
    assert not walked({"motion": LEAST_MOTION}, progress=STARTED).fault


def test_samples_that_are_one_point_are_a_fault_after_a_while() -> None:
    point = {"width": 0.99 * LEAST_WIDTH}
    assert walked(point, point, progress=STARTED).is_lost
    assert not walked({"width": LEAST_WIDTH}, progress=STARTED).fault
    assert not walked(point, point).fault


def test_samples_may_lie_as_far_away_as_the_noise_they_begin_with() -> None:
    far = {"one_step": 9.0, "many_steps": 9.0, "noise": 9.0}
    assert not walked(far).fault
    assert walked(far | {"many_steps": 28.0}).fault == "guardian/many_steps is 28, above 27"
    assert walked(far | {"composition": 2.5}).fault == "guardian/composition is 2.5, above 2"


def test_health_goes_through_a_checkpoint() -> None:
    health = walked({}, {"one_step": 9.0})
    assert Health(**health.to_dict()) == health
