from dataclasses import replace

import pytest

from onestep.platform.registry.errors import ModelAltered
from onestep.platform.registry.promotion import Promotion, following, read_history


def promotion(number: int, *, minute: int, to: int, previous: tuple[str, ...] = ()) -> Promotion:
    return Promotion(
        alias="champion",
        number=number,
        at=f"2026-01-01T00:{minute:02d}:00.000000+00:00",
        who="ada",
        why="better",
        source="",
        to=f"digits/{to}",
        previous=previous,
    )


FIRST = promotion(1, minute=0, to=1)
LEFT = promotion(2, minute=1, to=2, previous=(FIRST.digest,))
RIGHT = promotion(2, minute=2, to=3, previous=(FIRST.digest,))
LAST = promotion(3, minute=3, to=4, previous=(LEFT.digest, RIGHT.digest))


def tags(*promotions: Promotion) -> dict[str, str]:
    return {one.key: one.to_json() for one in promotions}


def test_a_history_is_read_in_the_same_order_by_everyone():
    everything = tags(LAST, RIGHT, LEFT, FIRST) | {"other": "tag"}
    assert read_history(everything, "champion", model="digits") == (FIRST, LEFT, RIGHT, LAST)


def test_histories_of_several_aliases_do_not_mix():
    other = replace(FIRST, alias="champion-2")
    kept = tags(FIRST, other)
    assert read_history(kept, "champion", model="digits") == (FIRST,)
    assert read_history(kept, "champion-2", model="digits") == (other,)


def test_the_next_entry_follows_all_open_ends():
    assert following(()) == (1, ())
    assert following((FIRST,)) == (2, (FIRST.digest,))
    assert following((FIRST, LEFT, RIGHT)) == (3, (LEFT.digest, RIGHT.digest))
    assert following((FIRST, LEFT, RIGHT, LAST)) == (4, (LAST.digest,))


@pytest.mark.parametrize(
    "change",
    [{"who": "eve"}, {"why": "worse"}, {"to": "digits/9"}, {"number": 9}, {"previous": ()}],
)
def test_no_part_of_an_entry_can_be_changed(change):
    kept = tags(FIRST, LEFT)
    kept[LEFT.key] = replace(LEFT, **change).to_json()
    with pytest.raises(ModelAltered, match="digits@champion was altered"):
        read_history(kept, "champion", model="digits")


def test_an_entry_cannot_be_taken_from_under_a_later_one():
    with pytest.raises(ModelAltered, match="lost the entry"):
        read_history(tags(FIRST, LEFT, LAST), "champion", model="digits")


def test_text_that_is_no_entry_is_refused():
    with pytest.raises(ModelAltered, match="cannot be read"):
        read_history({FIRST.key: "no json"}, "champion", model="digits")


def test_an_entry_fits_the_column_of_the_database():
    longest = replace(FIRST, why="\u00e9" * 1000, who="a" * 1000, gate="g" * 300)
    assert len(longest.to_json()) < 5000
    with pytest.raises(ValueError, match="at most 5000 characters as JSON, got"):
        replace(FIRST, gate="g" * 5000)


@pytest.mark.parametrize("why", ["", "  ", "w" * 1001])
def test_a_promotion_needs_a_reason_of_reasonable_length(why):
    with pytest.raises(ValueError, match="promotion why must have 1 to 1000 characters"):
        replace(FIRST, why=why)
