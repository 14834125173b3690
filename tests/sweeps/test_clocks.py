"""Where the schedules of trials stand, in experiments as a command line composes them."""

from pathlib import Path
from typing import Final

import pytest

from onestep.methods.core.schedule import (
    Clock,
    Constant,
    Cosine,
    Linear,
    Position,
    Product,
    Schedule,
    Sigmoid,
)
from onestep.sweeps.clocks import differences, moment_after, planned, schedules_of
from onestep.tests.sweeps.curricula import (
    ALPHA,
    CONSTANT,
    alpha,
    ramp,
    rated,
    trial,
    with_training,
)

METHODS: Final = sorted(
    path.stem for path in (Path(__file__).parents[2] / "methods" / "conf" / "method").glob("*.yaml")
)


def held(part: object, seen: set[int]) -> list[Schedule]:
    """All schedules that an object of the project reaches, by whatever way."""
    if id(part) in seen:
        return []
    seen.add(id(part))
    if isinstance(part, Schedule):
        return [part]
    if isinstance(part, dict):
        return [found for value in part.values() for found in held(value, seen)]
    if isinstance(part, list | tuple | set | frozenset):
        return [found for value in part for found in held(value, seen)]
    if type(part).__module__.startswith("onestep."):
        return held(vars(part) if hasattr(part, "__dict__") else (), seen)
    return []


@pytest.mark.parametrize("method", METHODS)
def test_no_schedule_of_a_method_is_overlooked(method: str) -> None:
    one = trial(f"method={method}")
    reached = held(one.learner, set())
    found = schedules_of(one)
    switches = one.learner.switches
    own = [path for path in found if path.removeprefix("method.") not in switches]
    assert {id(part) for part in reached} == {id(found[p]) for p in own if p != "learning_rate"}
    assert found["learning_rate"] is one.learning_rate


def test_a_path_leads_to_what_an_override_changes() -> None:
    keys = ("method.times.diagonal.value=0.125", "method.alpha.until=0.25")
    found = schedules_of(trial("method=alpha_flow", *keys))
    assert found["method.times.diagonal"] == Constant(value=0.125)
    changed = found[ALPHA]
    assert isinstance(changed, Sigmoid)
    assert changed.until == 0.25


def test_what_a_plain_number_begins_is_seen() -> None:
    kind = "onestep.methods.core.adversary.Adversary"
    node = f"method.adversary={{_target_:{kind},features:{{trunk:8}}}}"
    common = ("method=instaflow", node)
    early, late = (trial(*common, f"method.critic_begins={at}") for at in (0.1, 0.5))
    (found,) = differences([early, late], 3000)
    assert str(found) == "method.critic_begins (0% of its move on the clock progress, at rest)"
    assert differences([early, late], 4500) == ()


def test_equal_curricula_with_other_values_stand_together() -> None:
    trials = [alpha(**{key: value}) for key in ("end", "start") for value in (0.2, 0.7)]
    trials += [alpha(steepness=10.0), alpha(Linear(start=0.5, end=0.1))]
    assert all(differences(trials, samples) == () for samples in (0, 1000, 3000, 9000))


def test_curricula_that_end_at_other_times_stand_apart_until_both_are_over() -> None:
    trials = [alpha(until=0.5), alpha(until=1.0)]
    (found,) = differences(trials, 1800)
    assert found.path == ALPHA
    assert [[one.share for one in each] for each in found.standings] == [[0.2], [0.4]]
    moves = "20% of its move on the clock progress, 40% of its move on the clock progress"
    assert str(found) == f"method.alpha ({moves})"
    assert differences(trials, 0) == ()
    assert differences(trials, 8100)
    assert differences(trials, 9000) == ()


def test_what_never_moves_stands_with_what_has_finished() -> None:
    trials = [alpha(CONSTANT), alpha(until=0.5)]
    (found,) = differences(trials, 1800)
    assert str(found) == "method.alpha (40% of its move on the clock progress, at rest)"
    assert differences(trials, 4500) == ()


def test_equal_shares_on_other_clocks_stand_apart_until_both_are_over() -> None:
    trials = [alpha(ramp(Clock.PROGRESS, 0.5)), alpha(ramp(Clock.SAMPLES, 4500.0))]
    shares = [schedules_of(one)[ALPHA].positions(moment_after(one, 1800)) for one in trials]
    assert [[one.share for one in each] for each in shares] == [[0.4], [0.4]]
    (found,) = differences(trials, 1800)
    assert found.standings == (
        (Position(clock=Clock.PROGRESS, share=0.4),),
        (Position(clock=Clock.SAMPLES, share=0.4),),
    )
    assert differences(trials, 4500) == ()


def test_a_run_of_other_length_stands_elsewhere_after_the_same_samples() -> None:
    short, long = with_training(alpha(), samples=4500), alpha()
    assert [one.path for one in differences([short, long], 1800)] == [ALPHA]
    # At its end a run stands at its end, also of those who have more to go.
    assert moment_after(short, 9000).progress == 1.0


def test_whole_batches_of_another_size_make_no_difference() -> None:
    """101 and 112 whole batches of run, 33 and 37 of them after 3000 samples."""
    trials = [with_training(alpha(), batch_size=size) for size in (89, 80)]
    shares = [moment_after(one, 3000).progress for one in trials]
    assert shares[0] != shares[1]
    assert differences(trials, 3000) == ()


def test_steps_of_other_batches_stand_apart() -> None:
    one = alpha(ramp(Clock.STEP, 100.0))
    trials = [one, with_training(one, batch_size=45)]
    assert [one.path for one in differences(trials, 1800)] == [ALPHA]


def test_the_learning_rate_is_a_schedule_too() -> None:
    trials = [rated(Cosine(start=1.0, end=0.0, begin=begin)) for begin in (0.0, 0.5)]
    assert [one.path for one in differences(trials, 1800)] == ["learning_rate"]


def test_moves_of_a_product_are_compared_clock_by_clock() -> None:
    warmup, decay = ramp(Clock.SAMPLES, 1800.0), ramp(Clock.PROGRESS, 1.0)
    both, swapped, alone = (
        rated(Product(factors=factors))
        for factors in ((warmup, decay), (decay, warmup), (decay, CONSTANT))
    )
    assert differences([both, swapped], 900) == ()
    (found,) = differences([both, alone], 900)
    assert str(found) == (
        "learning_rate (10% of its move on the clock progress and 50% of its move on the clock "
        "samples, 10% of its move on the clock progress)"
    )
    assert differences([both, alone], 1800) == (), "its warm-up is over"


def test_a_run_planned_on_its_rung_has_finished_there() -> None:
    trials = [alpha(until=0.5), alpha(until=1.0), alpha(CONSTANT)]
    again = [planned(one, 1800) for one in trials]
    assert [one.experiment.training.samples for one in again] == [1800] * 3
    assert differences(trials, 1800)
    assert differences(again, 1800) == ()
    counted = [planned(alpha(ramp(Clock.SAMPLES, until)), 1800) for until in (2000.0, 9000.0)]
    assert [one.path for one in differences(counted, 1800)] == [ALPHA]


def test_many_standings_are_told_by_the_first_and_the_last() -> None:
    trials = [alpha(until=until) for until in (0.25, 0.5, 0.8, 1.0)]
    (found,) = differences(trials, 900)
    assert str(found) == (
        "method.alpha (10% of its move on the clock progress, ..., "
        "40% of its move on the clock progress)"
    )
