"""Two trials at once whose sweep is killed again and again, at the level of the book."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.sweeps.book import Book
from onestep.sweeps.cost import Cost
from onestep.sweeps.record import Outcome
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.stopping import Stopping, StoppingKind
from onestep.sweeps.study import ended, open_storage, storage_url
from onestep.sweeps.suggestion import Suggestion
from onestep.tests.sweeps.booking import SETTINGS, TOTAL, new_storage, number, open_book

_ASHA: Final = Stopping(kind=StoppingKind.ASHA, grace_samples=250)
_HYPERBAND: Final = replace(_ASHA, kind=StoppingKind.HYPERBAND)
_RULES: Final = {
    "asha": _ASHA,
    "asha, planned again": replace(_ASHA, replan=True),
    "asha, filled": replace(_ASHA, replan=True, fill=True),
    "hyperband": _HYPERBAND,
    "hyperband, planned again": replace(_HYPERBAND, replan=True),
    "median": Stopping(kind=StoppingKind.MEDIAN, grace_samples=250, startup=2),
}


@dataclass(kw_only=True)
class Running:
    """A trial on its way.

    Attributes:
        left: Samples at which it is still to be measured.
        until: When it will be at the first of them.
        last: Samples at which it was measured last; 0 where it was not.
    """

    left: list[int]
    until: float
    last: int = 0


def found(which: int, samples: int) -> float:
    """What a trial reaches: curves that cross."""
    return ((which * 7) % 11 - 5) * (samples / TOTAL - 0.4)


def pace(which: int) -> float:
    """Time that a trial takes for a sample; no two are as fast."""
    return 1.0 + ((which * 5) % 7) / 10 + which / 1000


def play(open_again: Callable[[], Book], budgets: tuple[int, ...], *, is_killed: bool) -> Book:
    """Run a sweep to its end, and kill it after everything that happens, or never.

    What runs when it is killed is measured once more where it was last, and goes on from there.
    """
    book, running, now = open_again(), dict[int, Running](), 0.0

    def begin(suggestion: Suggestion) -> None:
        rung, which = suggestion.rung, suggestion.number
        left = list(budgets) if rung is None else [budgets[rung]]
        running[which] = Running(left=left, until=now + left[0] * pace(which))

    while True:
        while len(running) < 2 and (suggestion := book.suggest()) is not None:
            begin(suggestion)
        if not running:
            assert book.is_done
            book.close()
            return book
        which = min(running, key=lambda one: running[one].until)
        now = running[which].until
        if advance(book, which, running[which]):
            del running[which]
        if is_killed:
            before = told(book)
            book = open_again()
            assert told(book) == before
            go_on(book, running)


def advance(book: Book, which: int, one: Running) -> bool:
    """Measure a trial at the next of its samples; whether it has come to an end there."""
    samples = one.left.pop(0)
    numbers, cost = [number(found(which, samples))], Cost(samples=samples)
    is_over = not one.left
    if one.left:
        is_over = book.measured(which, numbers, samples=samples, cost=cost)
        one.until += (one.left[0] - samples) * pace(which)
        one.last = samples
    if is_over:
        report = "" if one.left else "{}"
        book.end(which, numbers, samples=samples, report=report, cost=cost)
    return is_over


def go_on(book: Book, running: Mapping[int, Running]) -> None:
    """Start again what ran when the sweep was killed, and nothing else."""
    again = [book.suggest() for _ in running]
    assert sorted(one.number for one in again if one is not None) == sorted(running)
    for which, one in running.items():
        if one.last:
            numbers, cost = [number(found(which, one.last))], Cost(samples=one.last)
            assert not book.measured(which, numbers, samples=one.last, cost=cost)


def told(book: Book) -> list[tuple[Any, ...]]:
    """All that a study says of its trials but when it was."""
    return [
        (one.number, one.state, one.params, one.values, one.intermediate_values, one.user_attrs)
        for one in book.study.get_trials()
    ]


@pytest.mark.parametrize("rule", _RULES.values(), ids=_RULES.keys())
def test_two_trials_at_once_come_to_the_same_end_when_the_sweep_is_killed_after_every_event(
    rule: Stopping, tmp_path: Path, empty_study: Path
) -> None:
    settings = replace(SETTINGS, trials=9, sampler=SamplerKind.RANDOM, scheduler=rule)
    budgets = rule.budgets(TOTAL)

    def played(name: str, *, is_killed: bool) -> Book:
        new_storage(tmp_path / name, empty_study)
        return play(lambda: opened(settings, tmp_path / name), budgets, is_killed=is_killed)

    whole = played("whole", is_killed=False)
    assert told(played("killed", is_killed=True)) == told(whole)
    outcomes = [one.outcome for one in ended(whole.study)]
    assert len(outcomes) == 9
    assert set(outcomes) == {Outcome.FINISHED, Outcome.STOPPED}


def opened(settings: SweepSettings, folder: Path) -> Book:
    """The book as another process finds it."""
    return open_book(open_storage(storage_url(settings, folder)), folder, settings)
