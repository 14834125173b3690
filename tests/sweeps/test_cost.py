import math
from typing import Any, Final

import pytest

from onestep.sweeps.cost import Budget, Cost
from onestep.tests.sweeps.booking import TOTAL


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"samples": -1}, "sweep.budget.samples must be at least 0, got -1"),
        ({"money": 5.0}, "sweep.budget.money needs a price"),
        ({"trials_per_node": 0}, "trials_per_node must be above 0, got 0"),
        ({"trials_per_node": 2}, "trials_per_node has no effect without .*price_per_node_hour"),
        ({"seconds": 1e-9}, "seconds must be 0 or at least 1, for less pays for no trial"),
        ({"gpu_seconds": 0.5}, "gpu_seconds must be 0 or at least 1"),
        ({"money": 0.001, "price_per_node_hour": 36.0}, "money must be 0 or at least 0.01, the"),
    ],
)
def test_a_bad_budget_is_refused(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget(**limits)


def test_a_budget_of_less_than_a_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or at least the 1000 of a trial, got 999"):
        Budget(samples=999).check(samples_of_a_trial=TOTAL)


def check(budget: Budget, *, workers: int = 1, gpus: float = 0.0) -> None:
    budget.check_trials(workers=workers, gpus_per_worker=gpus, concurrency=2)


def test_a_budget_that_contradicts_how_trials_run_is_refused() -> None:
    with pytest.raises(ValueError, match="gpu_seconds limits nothing where trials hold no GPU"):
        check(Budget(gpu_seconds=60.0))
    check(Budget(gpu_seconds=60.0), gpus=0.5)
    spread = Budget(price_per_node_hour=2.0, trials_per_node=0.25)
    with pytest.raises(ValueError, match=r"a worker is on one node, got 0\.25 and 2 workers"):
        check(spread, workers=2)
    check(spread, workers=4)
    with pytest.raises(ValueError, match=r"at most sweep\.concurrency, .* got 4 and 2"):
        check(Budget(price_per_node_hour=2.0, trials_per_node=4))


def test_a_trial_on_four_nodes_costs_as_much_as_four_nodes() -> None:
    spread = Budget(price_per_node_hour=2.0, trials_per_node=0.25)
    assert spread.price(Cost(wall_s=1800.0)) == pytest.approx(4.0)


def test_a_budget_says_how_many_trials_it_pays_for() -> None:
    each = Cost(wall_s=100.0, gpu_s=50.0, samples=1000)
    assert Budget().trials(each) == math.inf
    assert Budget(samples=3999).trials(each) == 3  # what it is planned to take has to be left
    assert Budget(seconds=301.0).trials(each) == 4  # what has been begun comes to its end
    assert Budget(seconds=301.0, gpu_seconds=60.0).trials(each) == 2
    assert Budget(money=1.0, price_per_node_hour=36.0).trials(each) == 1
    assert Budget(seconds=301.0, samples=7000).trials(each, at_once=6) == 6
    assert Budget(seconds=301.0, samples=5000).trials(each, at_once=6) == 5
    assert Budget(samples=500).share(each) == 0.5


_SPENT: Final = Cost(wall_s=180.0, gpu_s=90.0, samples=3 * TOTAL)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"samples": 2999}, "sweep.budget.samples must be 0 or at least the 3000 .* got 2999$"),
        ({"seconds": 179.0}, "sweep.budget.seconds must be 0 or at least the 180 .* got 179.0$"),
        ({"gpu_seconds": 1.0}, "sweep.budget.gpu_seconds must be 0 or at least the 90 .* got 1.0$"),
        ({"money": 1.7, "price_per_node_hour": 36.0}, "sweep.budget.money must be .* the 1.8 .*"),
    ],
)
def test_a_limit_cannot_be_set_below_what_has_been_spent(limits: dict[str, Any], said: str) -> None:
    asked = Budget(**limits)
    with pytest.raises(ValueError, match=said):
        asked.check_spent(_SPENT, before=Budget())
    asked.check_spent(_SPENT, before=asked)  # what trials that run at once have exceeded stays


def test_a_limit_may_be_set_to_what_has_been_spent_or_taken_away() -> None:
    before = Budget(samples=5000, seconds=100.0)
    Budget(samples=3000, seconds=180.0).check_spent(_SPENT, before=before)
    Budget(samples=3000, seconds=100.0).check_spent(_SPENT, before=before)
    Budget().check_spent(_SPENT, before=before)
    third = Cost(wall_s=100.0 / 3.0)
    Budget(seconds=33.3333).check_spent(third, before=Budget())  # the number that is printed


def test_another_price_is_another_limit_of_money() -> None:
    before = Budget(money=5.0, price_per_node_hour=36.0)
    dearer = Budget(money=5.0, price_per_node_hour=360.0)
    with pytest.raises(
        ValueError, match=r"money must be 0 or at least the 18 that have been spent"
    ):
        dearer.check_spent(_SPENT, before=before)
