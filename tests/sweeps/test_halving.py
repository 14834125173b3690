"""Rungs, what they cost, and who goes on."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from onestep.sweeps.halving import (
    Promotion,
    Rung,
    bracket_cost,
    bracket_of,
    ladder,
    promotable,
    sizes,
)
from onestep.sweeps.ranking import Values


@pytest.mark.parametrize(
    ("grace", "total", "reduction", "batch", "want"),
    [
        (50, 450, 3, 1, (50, 150, 450)),
        (40, 450, 3, 1, (50, 150, 450)),
        (51, 450, 3, 1, (150, 450)),
        (10_000, 100_000, 3, 100, (11_100, 33_300, 100_000)),
        (25_000, 100_000, 2, 256, (24_832, 49_664, 100_000)),
        (1, 8, 2, 1, (1, 2, 4, 8)),
    ],
)
def test_rungs_are_laid_down_from_the_whole_run(
    grace: int, total: int, reduction: int, batch: int, want: tuple[int, ...]
) -> None:
    assert ladder(grace, total, reduction, batch=batch) == want


def test_whoever_measures_each_lowest_rung_measures_every_rung() -> None:
    for grace, total, reduction, batch in itertools.product(
        (7, 100, 480), (2_000, 9_999), (2, 3, 4), (1, 64)
    ):
        *rungs, whole = ladder(grace, total, reduction, batch=batch)
        assert whole == total
        assert all(one % rungs[0] == 0 and one % batch == 0 for one in rungs)
        assert grace - batch < rungs[0] < max(grace, batch) * reduction
        assert all(a < b for a, b in itertools.pairwise((*rungs, whole)))


@pytest.mark.parametrize(
    ("grace", "reduction", "batch", "words"),
    [
        (301, 3, 1, "no rung of at least 301 samples fits 3 times into the 900"),
        (100, 3, 512, "no rung of at least 512 samples"),
        (0, 3, 1, "grace and batch of at least 1"),
        (10, 1, 1, "reduction of at least 2"),
    ],
)
def test_rungs_that_do_not_fit_are_refused(
    grace: int, reduction: int, batch: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ladder(grace, 900, reduction, batch=batch)


def test_planning_again_is_paid_for_at_every_rung() -> None:
    budgets = (100, 300, 900)
    assert sizes(9, 3, 3) == (9, 3, 1)
    assert sizes(4, 3, 3) == (4, 1, 1)
    assert bracket_cost(budgets, 9, 3, replan=True) == 9 * 100 + 3 * 300 + 900
    assert bracket_cost(budgets, 9, 3, replan=False) == 9 * 100 + 3 * 200 + 600


def results(**values: float) -> dict[int, Values]:
    """One value for each of some configurations, named by letters from a."""
    return {ord(name) - ord("a"): (value,) for name, value in values.items()}


def test_the_best_third_of_a_rung_goes_on_and_the_highest_rung_comes_first() -> None:
    low = results(a=0.1, b=0.9, c=0.5, d=0.3, e=0.7, f=0.2)
    empty = [Rung(results=low), Rung(), Rung()]
    assert promotable(empty, count=9, reduction=3) == Promotion(number=0, rung=1)
    one = [Rung(results=low), Rung(running=frozenset({0})), Rung()]
    assert promotable(one, count=9, reduction=3) == Promotion(number=5, rung=1)
    both = [Rung(results=low), Rung(results=results(a=0.1), running=frozenset({5})), Rung()]
    assert promotable(both, count=9, reduction=3) is None
    late = [Rung(results=low), Rung(results=results(a=0.3, d=0.2, e=0.4)), Rung()]
    assert promotable(late, count=9, reduction=3) == Promotion(number=3, rung=2)


def test_two_of_three_results_promote_nobody_while_more_are_to_come() -> None:
    few = [Rung(results=results(a=0.1, b=0.9)), Rung()]
    assert promotable(few, count=3, reduction=3) is None
    third = [Rung(results=results(a=0.1, b=0.9), running=frozenset({2})), Rung()]
    assert promotable(third, count=3, reduction=3) is None


def test_a_sweep_ends_with_a_whole_run() -> None:
    few = [Rung(results=results(a=0.4, b=0.1)), Rung(), Rung()]
    assert promotable(few, count=2, reduction=3) == Promotion(number=1, rung=1)
    next_one = [few[0], Rung(results=results(b=0.1)), Rung()]
    assert promotable(next_one, count=2, reduction=3) == Promotion(number=1, rung=2)
    running = [few[0], Rung(results=results(b=0.1)), Rung(running=frozenset({1}))]
    assert promotable(running, count=2, reduction=3) is None
    done = [few[0], Rung(results=results(b=0.1)), Rung(results=results(b=0.1))]
    assert promotable(done, count=2, reduction=3) is None


def test_a_run_that_failed_counts_and_never_goes_on() -> None:
    failed = results(a=math.nan, b=math.nan, c=math.nan)
    assert promotable([Rung(results=failed), Rung()], count=3, reduction=3) is None
    at_top = [Rung(results=results(a=0.1, b=0.2, c=0.3)), Rung(results=results(a=math.nan)), Rung()]
    assert promotable(at_top, count=3, reduction=3) == Promotion(number=1, rung=1)


def test_the_next_best_goes_in_the_place_of_one_that_has_gone_on_and_failed() -> None:
    four = results(a=0.1, b=0.2, c=0.3, d=0.4)
    lost = Rung(results=results(a=math.inf))
    for fill in (False, True):
        found = promotable([Rung(results=four), lost], count=4, reduction=4, fill=fill)
        assert found == Promotion(number=1, rung=1)
        again = Rung(results=results(a=math.inf, b=math.inf), running=frozenset({2}))
        assert promotable([Rung(results=four), again], count=4, reduction=4, fill=fill) is None
        whole = Rung(results=results(a=math.inf, b=0.1))
        assert promotable([Rung(results=four), whole], count=4, reduction=4, fill=fill) is None


@pytest.mark.parametrize("fill", [True, False])
def test_runs_that_fail_above_the_lowest_rung_leave_it_as_full_as_it_was_planned(
    fill: bool,
) -> None:
    held: list[dict[int, Values]] = [{k: (float(k),) for k in range(16)}, {}, {}]
    while True:
        known = [Rung(results=each) for each in held]
        found = promotable(known, count=16, reduction=2, fill=fill)
        if found is None:
            break
        held[found.rung][found.number] = (math.inf if found.number < 3 else found.number,)
    assert sorted(held[1]) == list(range(11))
    assert sorted(held[2]) == [3, 4, 5, 6]


def test_who_goes_on_does_not_depend_on_who_came_first() -> None:
    rng = np.random.default_rng(0)
    points = {k: tuple(rng.random(2)) for k in range(9)}
    wanted = promotable([Rung(results=points), Rung()], count=9, reduction=3)
    for _ in range(20):
        shuffled = {k: points[k] for k in rng.permutation(9).tolist()}
        assert promotable([Rung(results=shuffled), Rung()], count=9, reduction=3) == wanted


def test_where_rungs_are_filled_only_who_is_sure_of_a_place_goes_on() -> None:
    five = results(a=0.1, b=0.2, c=0.3, d=0.4, e=0.5)
    assert promotable([Rung(results=five), Rung()], count=6, reduction=3) is not None
    one = promotable([Rung(results=five), Rung()], count=6, reduction=3, fill=True)
    assert one == Promotion(number=0, rung=1), "the sixth can take the second place alone"
    begun = [Rung(results=five), Rung(running=frozenset({0}))]
    assert promotable(begun, count=6, reduction=3, fill=True) is None
    six = [Rung(results={**five, 5: (0.15,)}), Rung(running=frozenset({0}))]
    assert promotable(six, count=6, reduction=3, fill=True) == Promotion(number=5, rung=1)


def test_filled_rungs_have_as_many_runs_as_they_were_planned_to_and_the_best_of_all() -> None:
    quality = {k: float(-k) for k in range(64)}
    found = run_all(quality, reduction=3, rungs=3, fill=True)
    assert [len(each) for each in found] == [64, 21, 7]
    best = sorted(quality, key=quality.__getitem__)
    assert {*found[1]} == {*best[:21]}
    assert {*found[2]} == {*best[:7]}
    eager = run_all(quality, reduction=3, rungs=3)
    assert len(eager[1]) > 21


def test_filled_rungs_of_runs_that_failed_have_fewer() -> None:
    quality = {k: float(k) if k < 11 else math.nan for k in range(27)}
    found = run_all(quality, reduction=3, rungs=3, fill=True)
    assert [len(each) for each in found] == [27, 9, 3]
    fewer = {k: float(k) if k < 7 else math.nan for k in range(27)}
    assert [len(each) for each in run_all(fewer, reduction=3, rungs=3, fill=True)] == [27, 7, 2]
    alone = {k: 0.0 if k == 5 else math.nan for k in range(27)}
    assert [len(each) for each in run_all(alone, reduction=3, rungs=3, fill=True)] == [27, 1, 1]


def run_all(
    quality: dict[int, float], *, reduction: int, rungs: int, fill: bool = False
) -> list[dict[int, Values]]:
    """A sweep of one run at a time whose every run tells the quality itself."""
    held: list[dict[int, Values]] = [{} for _ in range(rungs)]
    waiting = sorted(quality)
    while True:
        known = [Rung(results=each) for each in held]
        found = promotable(known, count=len(quality), reduction=reduction, fill=fill)
        if found is None and not waiting:
            return held
        if found is None:
            number, rung = waiting.pop(0), 0
        else:
            number, rung = found.number, found.rung
        held[rung][number] = (quality[number],)


def test_a_place_that_was_taken_on_few_results_is_not_given_twice_while_more_are_to_come() -> None:
    overtaken = [Rung(results=results(a=0.5, b=0.6, c=0.7, d=0.1)), Rung(results=results(a=0.5))]
    assert promotable(overtaken, count=9, reduction=3) is None
    assert promotable(overtaken, count=4, reduction=3) == Promotion(number=3, rung=1)
    second = [Rung(results={**overtaken[0].results, 4: (0.8,), 5: (0.9,)}), overtaken[1]]
    assert promotable(second, count=9, reduction=3) == Promotion(number=3, rung=1)


@pytest.mark.parametrize("rungs", [2, 3, 4])
def test_until_all_have_started_no_rung_has_more_than_it_was_planned_to(rungs: int) -> None:
    """Each result is worse than those before it at one rung and better at the next."""
    held: list[dict[int, Values]] = [{} for _ in range(rungs)]
    for number in range(64):
        held[0][number] = (float(-number),)
        while True:
            known = [Rung(results=each) for each in held]
            found = promotable(known, count=65, reduction=3)
            if found is None:
                break
            held[found.rung][found.number] = (float(found.number),)
    assert [len(each) for each in held] == list(sizes(64, rungs, 3))


@pytest.mark.parametrize("count", [1, 2, 5, 9, 27])
def test_the_best_has_a_whole_run_in_the_end(count: int) -> None:
    """Where every rung tells the truth, whatever the order in which they start."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        quality = dict(enumerate(rng.permutation(count).tolist()))
        held = run_all(quality, reduction=3, rungs=3)
        best = min(quality, key=lambda k: quality[k])
        assert best in held[-1]
        nominal = sizes(count, 3, 3)
        assert len(held[0]) == count
        # What was promoted on few results and overtaken later comes on top.
        assert all(n <= len(each) for n, each in zip(nominal, held, strict=True))
        assert len(held[1]) <= nominal[1] + math.ceil(math.sqrt(count))


def test_brackets_cost_about_the_same_from_the_beginning_on() -> None:
    """The shares are those of Hyperband: 9, 5 and 3 of 17 trials in three brackets."""
    found = [bracket_of(number, 3, 3) for number in range(34)]
    assert Counter(found[:17]) == Counter(found[17:]) == {0: 9, 1: 5, 2: 3}
    for n in range(1, 18):
        filled = Counter(found[:n])
        assert all(abs(filled[b] - n * w / 17) <= 1.0 for b, w in enumerate((9, 5, 3)))
    assert {bracket_of(number, 1, 3) for number in range(5)} == {0}
