"""Comparisons of trials that stand apart are refused, and the way out is a way out."""

import re
from dataclasses import replace

import pytest

from onestep.methods.alpha_flow import AlphaFlow
from onestep.methods.core.schedule import Clock
from onestep.methods.core.times import SortedTimes
from onestep.platform.training.assembly import Assembly
from onestep.sweeps.fairness import require_fair, unfair_at
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.tests.sweeps.curricula import ALPHA, CONSTANT, alpha, ramp, rated

TOTAL = 9000
ASHA = Stopping(kind=StoppingKind.ASHA, grace_samples=1000, reduction=3)
AGAIN = Stopping(kind=StoppingKind.ASHA, grace_samples=1000, reduction=3, replan=True)
MEDIAN = Stopping(kind=StoppingKind.MEDIAN, grace_samples=1000)
BUDGETS = ASHA.budgets(TOTAL, batch=90)


def test_the_rungs_of_these_tests() -> None:
    assert BUDGETS == (990, 2970, 9000)


def test_values_that_are_tried_may_differ() -> None:
    trials = [alpha(end=0.1), alpha(steepness=10.0), alpha()]
    require_fair(ASHA, trials, BUDGETS)


def test_a_fair_end_does_not_make_a_fair_rung() -> None:
    trials = [alpha(until=0.5), alpha(until=1.0)]
    found = unfair_at(ASHA, trials, BUDGETS)
    assert found is not None
    assert (found[0], [one.path for one in found[1]]) == (990, [ALPHA])


def test_a_comparison_is_unfair_where_it_becomes_so() -> None:
    """Both begin after the first rung."""
    trials = [alpha(begin=begin) for begin in (0.2, 0.3)]
    found = unfair_at(ASHA, trials, BUDGETS)
    assert found is not None
    assert found[0] == 2970


def test_nobody_is_ended_at_the_last_measurement() -> None:
    trials = [alpha(ramp(Clock.SAMPLES, until)) for until in (18_000.0, 36_000.0)]
    assert unfair_at(ASHA, trials, (TOTAL,)) is None
    require_fair(Stopping(), trials, Stopping().budgets(TOTAL))
    assert unfair_at(ASHA, trials, (TOTAL, 2 * TOTAL)) is not None


def test_a_refusal_names_the_schedules_and_a_remedy_that_is_one() -> None:
    trials = [alpha(until=0.5), alpha(CONSTANT)]
    words = (
        "sweep.scheduler.kind=asha would compare trials after 990 samples whose schedules stand "
        "at different points, method.alpha (22% of its move on the clock progress, at rest): set "
        "sweep.scheduler.replan=true, which makes each rung a run planned on its samples, or "
        "sweep.scheduler.kind=none, or try values with which they move together"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        require_fair(ASHA, trials, BUDGETS)
    require_fair(AGAIN, trials, BUDGETS)


@pytest.mark.parametrize("stopping", [ASHA, AGAIN], ids=["asha", "replan"])
def test_a_clock_that_planning_again_does_not_move_stays_refused(stopping: Stopping) -> None:
    trials = [alpha(ramp(Clock.SAMPLES, 3000.0)), alpha(ramp(Clock.PROGRESS, 0.5))]
    with pytest.raises(ValueError, match="after 990 samples") as refused:
        require_fair(stopping, trials, BUDGETS)
    assert str(refused.value).endswith(
        "sweep.scheduler.replan=true moves the clock progress alone, and method.alpha would still "
        "differ on the clock samples; set sweep.scheduler.kind=none, or try values with which they "
        "move together"
    )


def test_the_median_is_told_of_a_rule_that_plans_again() -> None:
    trials = [alpha(until=0.5), alpha()]
    with pytest.raises(ValueError, match=r"take asha or hyperband with .*replan=true$"):
        require_fair(MEDIAN, trials, MEDIAN.budgets(TOTAL, batch=90))
    with pytest.raises(ValueError, match=r"still differ on the clock step; set sweep.scheduler.ki"):
        require_fair(AGAIN, [alpha(ramp(Clock.STEP, until)) for until in (50.0, 99.0)], BUDGETS)


def test_of_many_schedules_some_are_named() -> None:
    def many(until: float) -> Assembly:
        move, one = ramp(Clock.PROGRESS, until), rated(ramp(Clock.PROGRESS, until))
        assert isinstance(one.learner, AlphaFlow)
        times = SortedTimes(diagonal=move)
        return replace(one, learner=replace(one.learner, alpha=move, times=times))

    with pytest.raises(
        ValueError, match=r"learning_rate \(.*; method.alpha \(.*; method.times.diagonal \("
    ):
        require_fair(ASHA, [many(0.5), many(1.0)], BUDGETS)
