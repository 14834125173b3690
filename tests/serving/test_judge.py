from dataclasses import replace

import pytest

from onestep.platform.registry.canary import CanaryTerms
from onestep.serving.drift import Drift
from onestep.serving.judge import FEW, LATEST, Evidence, Fate, Latest, judge

TERMS = CanaryTerms(images=1000, max_errors=0.01, max_latency=1.5, max_drift=0.05)
GOOD = Evidence(
    requests=1000,
    errors=5,
    images=1000,
    ratios=(0.8, 1.0, 1.2, 1.4) * 5,
    drift=Drift(coefficient=0.02, p_value=0.0002),
)


def fate(**changes: object) -> Fate:
    return judge(TERMS, replace(GOOD, **changes))[0]  # type: ignore[arg-type]


def test_a_version_that_keeps_its_terms_is_promoted_after_its_images_and_not_before() -> None:
    found, why = judge(TERMS, GOOD)
    assert found is Fate.PROMOTE
    assert why.startswith("1000 images, 5 of 1000 requests failed, 1.10 times the")
    assert fate(images=999) is Fate.GO_ON


def test_nothing_is_promoted_that_was_not_compared() -> None:
    assert fate(drift=None) is Fate.GO_ON
    assert fate(ratios=(1.0,) * (FEW - 1)) is Fate.GO_ON


@pytest.mark.parametrize(
    ("errors", "requests", "expected"),
    [
        (1, 1, Fate.GO_ON),  # once in a hundred where one in a hundred may fail
        (2, 2, Fate.ROLL_BACK),
        (2, 20, Fate.GO_ON),
        (10, 1000, Fate.PROMOTE),
        (15, 1000, Fate.GO_ON),  # too many, but it may be chance
        (25, 1000, Fate.ROLL_BACK),
    ],
)
def test_errors_speak_against_a_version_where_chance_does_not_explain_them(
    errors: int, requests: int, expected: Fate
) -> None:
    assert fate(errors=errors, requests=requests) is expected


def failures_until_it_is_rolled_back(good: int) -> int:
    latest, errors = Latest(), 0
    evidence = replace(GOOD, requests=good, errors=0, latest=latest.look(good, 0))
    while judge(TERMS, replace(evidence, images=0))[0] is not Fate.ROLL_BACK:
        errors += 1
        seen = latest.look(good + errors, errors)
        evidence = replace(evidence, requests=good + errors, errors=errors, latest=seen)
    return errors


def test_a_version_that_was_good_for_long_is_rolled_back_soon_after_it_fails() -> None:
    assert failures_until_it_is_rolled_back(0) == 2
    assert failures_until_it_is_rolled_back(100_000) <= 10
    _, why = judge(TERMS, replace(GOOD, requests=100_000, latest=(120, 10)))
    assert why == "10 of the latest 120 requests failed, allowed is a share of 0.01"


def test_a_few_failures_of_the_latest_requests_may_be_chance() -> None:
    assert fate(latest=(LATEST, 5)) is Fate.PROMOTE


def test_the_latest_requests_are_those_of_the_fewest_looks_that_have_enough() -> None:
    latest = Latest()
    assert latest.look(1000, 7) == (0, 0)  # what was before is not known
    assert latest.look(1000, 7) == (0, 0)
    assert latest.look(1060, 8) == (60, 1)
    assert latest.look(1120, 8) == (120, 1)
    assert latest.look(1160, 9) == (100, 1)
    assert latest.look(1500, 9) == (340, 0)
    assert latest.look(700, 9) == (0, 0)  # a replica started again
    assert latest.look(750, 12) == (50, 3)


def test_no_error_may_be_allowed() -> None:
    found, why = judge(replace(TERMS, max_errors=0.0), replace(GOOD, errors=1))
    assert found is Fate.ROLL_BACK
    assert why == "1 of 1000 requests failed, allowed is a share of 0"
    assert judge(replace(TERMS, max_errors=0.0), replace(GOOD, errors=0))[0] is Fate.PROMOTE


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((2.0,) * 9, Fate.GO_ON),
        ((2.0,) * 10, Fate.ROLL_BACK),
        ((2.0,) * 12 + (1.0,) * 8, Fate.GO_ON),  # slower in the median, not beyond chance
        ((1.0,) * 11 + (90.0,) * 9, Fate.PROMOTE),  # a few slow ones are a busy machine's
    ],
)
def test_time_speaks_against_a_version_that_is_slower_nearly_always(
    ratios: tuple[float, ...], expected: Fate
) -> None:
    assert fate(ratios=ratios) is expected


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (Drift(coefficient=0.2, p_value=0.0002), Fate.ROLL_BACK),
        (Drift(coefficient=0.2, p_value=0.01), Fate.PROMOTE),  # large by chance
        (Drift(coefficient=0.04, p_value=0.0002), Fate.PROMOTE),  # certain and small
    ],
)
def test_drift_must_be_both_certain_and_large(drift: Drift, expected: Fate) -> None:
    assert fate(drift=drift) is expected


def test_an_objection_is_heard_before_all_images_are_made() -> None:
    large = Drift(coefficient=0.3, p_value=0.0002)
    found, why = judge(TERMS, replace(GOOD, images=10, drift=large))
    assert found is Fate.ROLL_BACK
    assert why == (
        "its images differ from the champion's by a drift of 0.300 (p = 0.0002), allowed is 0.05"
    )
