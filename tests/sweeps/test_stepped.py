"""Trials as Ray Tune steps them: rows in order, ends, errors, and trials that are left."""

import threading
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest
from greenlet import GreenletExit

from onestep.sweeps.stepped import Row, SteppedTrial, Tell

_NAME: Final = "name"


@contextmanager
def _left(name: str, seen: list[str]) -> Any:
    try:
        yield
    except GreenletExit:
        seen.append(f"{name} left")
        raise
    finally:
        seen.append(f"{name} closed")


def _count(config: Mapping[str, Any], *, tell: Tell, seen: list[str]) -> Row:
    assert threading.current_thread() is threading.main_thread()
    with _left(config[_NAME], seen):
        for number in range(2):
            seen.append(f"{config[_NAME]} {number}")
            tell({"row": number})
        if config[_NAME] == "bad":
            raise RuntimeError("no such thing")
    return {"row": "last"}


def _trial(name: str, seen: list[str]) -> SteppedTrial:
    class Bound(SteppedTrial):  # type: ignore[misc]  # as Ray Tune binds parameters
        def setup(self, config: dict[str, Any]) -> None:
            super().setup(config, run=_count, seen=seen)

    return Bound({_NAME: name})


def test_a_step_is_the_way_from_a_row_to_the_next_and_the_last_row_says_so() -> None:
    seen: list[str] = []
    trial = _trial("one", seen)
    assert seen == []
    rows = []
    for so_far in (["one 0"], ["one 0", "one 1"], ["one 0", "one 1", "one closed"]):
        rows.append(trial.train())
        assert seen == so_far
    assert [(row["row"], row["done"]) for row in rows] == [(0, False), (1, False), ("last", True)]


@pytest.mark.parametrize("how", ["another", "stop"])
def test_a_trial_that_is_stopped_is_left_before_anything_else_begins(how: str) -> None:
    seen: list[str] = []
    trial = _trial("one", seen)
    trial.train()
    if how == "stop":
        trial.stop()
        assert seen == ["one 0", "one left", "one closed"]
        return
    assert trial.reset({_NAME: "two"})
    assert seen == ["one 0", "one left", "one closed"]
    trial.train()
    assert seen[3:] == ["two 0"]


def test_a_trial_that_was_not_begun_leaves_nothing() -> None:
    seen: list[str] = []
    trial = _trial("one", seen)
    trial.reset({_NAME: "two"})
    trial.stop()
    assert seen == []


def test_an_error_is_raised_by_the_step_in_which_it_occurs() -> None:
    trial = _trial("bad", [])
    assert [trial.train()["row"] for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="no such thing"):
        trial.train()
