"""Conditions are cut, repeated and dropped row by row, every part alike."""

import torch

from onestep.methods.core.condition import NULL_LABEL, UNGUIDED, Condition

FULL = Condition(
    label=torch.tensor([3, 1, 2]),
    tokens=torch.tensor([[5, 6], [7, NULL_LABEL], [8, 9]]),
    guidance=torch.tensor([2.0, 1.5, 3.0]),
)


def parts(condition: Condition) -> list[list[float]]:
    found = (condition.label, condition.tokens, condition.guidance)
    return [[] if part is None else part.flatten().tolist() for part in found]


def test_rows_are_taken_from_every_part() -> None:
    assert parts(FULL[torch.tensor([2, 0])]) == [[2, 3], [8, 9, 5, 6], [3.0, 2.0]]
    assert parts(FULL[1:]) == [[1, 2], [7, -1, 8, 9], [1.5, 3.0]]


def test_conditions_are_joined_part_by_part() -> None:
    assert parts(Condition.joined([FULL[1:], FULL[:1]])) == parts(FULL[torch.tensor([1, 2, 0])])
    assert parts(Condition.joined([Condition(), Condition()])) == [[], [], []]


def test_dropped_rows_lose_every_part() -> None:
    dropped = FULL.drop(torch.tensor([True, False, True]))
    null = NULL_LABEL
    assert parts(dropped) == [
        [null, 1, null],
        [null, null, 7, null, null, null],
        [UNGUIDED, 1.5, UNGUIDED],
    ]


def test_the_null_condition_has_the_shape_of_the_condition() -> None:
    assert parts(FULL.null()) == [[-1] * 3, [-1] * 6, [1.0] * 3]
    assert FULL.label is not None
    assert FULL.label.tolist() == [3, 1, 2]


def test_parts_that_are_not_used_stay_unused() -> None:
    only = Condition(label=torch.tensor([0, 1]))
    for made in (only[:1], only.null(), only.to("cpu")):
        assert made.label is not None
        assert made.tokens is None
        assert made.guidance is None
