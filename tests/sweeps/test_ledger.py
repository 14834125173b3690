import json

import pytest

from onestep.sweeps.cost import Budget, Cost
from onestep.sweeps.ledger import Ledger
from onestep.sweeps.record import Outcome, TrialRecord


def trial(number: int, outcome: Outcome, samples: int, wall_s: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        overrides=(),
        values={},
        outcome=outcome,
        results=(),
        samples=samples,
        cost=Cost(wall_s=wall_s, training_s=wall_s / 2, gpu_s=wall_s / 4, samples=samples),
        reason="",
    )


_TRIALS = (
    trial(0, Outcome.FINISHED, 1000, 400.0),
    trial(1, Outcome.STOPPED, 250, 200.0),
    trial(2, Outcome.FAILED, 40, 40.0),
    trial(3, Outcome.STOPPED, 500, 200.0),
)


def test_the_sums_are_those_of_the_trials() -> None:
    price = Budget(price_per_node_hour=9.0, trials_per_node=2)
    ledger = Ledger.of(_TRIALS, price, lambda one: 1000)
    assert ledger.total() == {
        "trials": 4,
        "samples": 1790,
        "wall_s": 840.0,
        "training_s": 420.0,
        "posthoc_s": 0.0,
        "gpu_s": 210.0,
        "money": pytest.approx(840.0 / 3600.0 * 9.0 / 2),
    }
    assert ledger.total(Outcome.STOPPED)["wall_s"] == 400.0
    assert ledger.has_price
    assert not Ledger.of(_TRIALS, Budget(), lambda one: 1000).has_price


def test_stopping_saves_what_is_missing_of_stopped_trials_at_their_own_pace() -> None:
    ledger = Ledger.of(_TRIALS, Budget(), lambda one: 1000)
    assert ledger.saved_samples == 750 + 500
    # The first stopped trial took 0.8 s for a sample, the second 0.4 s.
    assert ledger.saved_s == pytest.approx(750 * 0.8 + 500 * 0.4)
    # Three trials would have seen 1000 samples each; the failed one counts as it was.
    assert ledger.saved_share == pytest.approx(1250 / 3040)


def test_runs_that_were_begun_anew_at_each_rung_count_against_what_is_saved() -> None:
    twice = (trial(0, Outcome.FINISHED, 1500, 300.0), trial(1, Outcome.STOPPED, 500, 100.0))
    ledger = Ledger.of(twice, Budget(), lambda one: 1000)
    assert (ledger.saved_samples, ledger.saved_s) == (0, pytest.approx(0.0))


def test_nothing_is_saved_where_nothing_was_stopped() -> None:
    ledger = Ledger.of(_TRIALS[::2], Budget(), lambda one: 1000)
    assert (ledger.saved_samples, ledger.saved_s, ledger.saved_share) == (0, 0.0, 0.0)
    assert json.loads(json.dumps(ledger.to_dict()))["trials"][1]["outcome"] == "failed"
