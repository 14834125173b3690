"""What serving was measured to reach."""

import pytest

from onestep.benchmarks import serving, serving_page, serving_soak
from onestep.benchmarks.misses import is_explained
from onestep.tests.benchmarks.stored import read


def test_the_page_of_serving_says_what_was_not_run_and_has_the_bars_of_what_was() -> None:
    others = {name: each for name, each in serving_page.stored().items() if name != "serving_soak"}
    assert "| serving_soak |  | not run |" in serving_page.page(others)
    soak = {"minutes": 30.0, "requests": 9, "failed": 0, "growth": 0.031}
    soak["bars"] = serving_soak.bars({**soak, "answered_by": {"digits/1": 5, "digits/2": 4}})
    assert [bar["reached"] for bar in soak["bars"]] == [True, False, True, True]
    explained = {**others, "serving_soak": {**soak, "bars": [soak["bars"][0], soak["bars"][3]]}}
    page = serving_page.page(explained)
    assert "not run" not in page
    assert "in 30 minutes 0 of 9 fail, and the memory of all processes grows by 3.1%" in page
    assert "| serving_soak | share_of_each_version | 0.444 | >= 0.25 |" in page


@pytest.mark.parametrize("peer", [serving.LIT, serving.BENTO])
def test_as_much_as_a_peer_is_not_more(peer: str) -> None:
    stored = read("serving")
    ours = stored["of_the_engine"][serving.HAPROXY]
    for median, reached in ((ours["median"], False), (0.9 * ours["median"], True)):
        shares = {**stored["of_the_engine"], peer: {**ours, "median": median}}
        bars = serving.bars({**stored, "of_the_engine": shares})
        found = {bar["number"]: bar["reached"] for bar in bars}
        assert found[f"of_{peer.lower()}"] is reached


def test_the_page_of_serving_is_that_of_its_numbers_and_explains_what_is_missed() -> None:
    found = serving_page.stored()
    assert serving_page.PAGE.read_text() == serving_page.page(found)
    assert is_explained(serving_page.misses(found))
