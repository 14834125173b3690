"""What a step costs, beside what was predicted."""

import pytest

from onestep.benchmarks import method_cost, method_cost_page, step_time
from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.methods.core.schedule import Constant
from onestep.methods.core.times import SortedTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.tests.benchmarks.stored import read


def test_the_cost_of_every_method_was_measured() -> None:
    assert list(read("method_cost")["methods"]) == method_cost.METHODS


def test_the_page_of_what_a_step_costs_is_that_of_its_numbers() -> None:
    page = method_cost_page.page(read("method_cost"), read("step_time"))
    assert method_cost_page.PAGE.read_text() == page


def test_the_page_tells_what_derivatives_cost_and_which_miss_their_bar() -> None:
    stored = read("step_time")
    good, case = stored["cases"][:2]
    slow = {**case, "recommended_ratio": 1.301, "recommended_error": 0.0042}
    cases = {"cases": [good, slow]}
    page = method_cost_page.page(
        read("method_cost"), {**stored, **cases, "bars": step_time.bars(cases)}
    )
    rows = {network: line for line in page.splitlines() if (network := line.split(" | ")[0][2:])}
    low, _, high = case["quartiles_recommended"]
    assert f"| **1.30** [{low:.2f}, {high:.2f}] | 1.00 | 4e-03 |" in rows[slow["network"]]
    assert "**" not in rows[good["network"]]


def test_the_memory_of_a_step_is_measured_and_judged() -> None:
    """Two forward passes of all rows would hold nearly twice that of one."""
    net, _ = step_time.network("mlp", (2,))
    batch = step_time.noise((2,), rows=512)
    method = MeanFlow(times=SortedTimes(diagonal=Constant(value=step_time.DIAGONAL)))
    taken = step_time.memory(method, net, batch)
    assert 1.0 <= taken / step_time.memory(FlowMatching(), net, batch) <= 1.2
    case = {"network": "mlp", **step_time.MOST}
    for name, most in step_time.MOST.items():
        good = step_time.bars({"cases": [case]})
        bad = step_time.bars({"cases": [{**case, name: 1.01 * most}]})
        assert [bar["reached"] for bar in good] == [True] * 4
        assert sorted(bar["reached"] for bar in bad) == [False, True, True, True]


def test_every_method_has_a_predicted_cost() -> None:
    assert sorted(PREDICTIONS) == method_cost.METHODS


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_says_what_it_counts_and_an_excess_why(name: str) -> None:
    prediction = PREDICTIONS[name]
    assert prediction.reason
    assert bool(prediction.excess) is (prediction.allowed > 1.15)
    assert prediction.allowed >= 1.15
    assert prediction.ratio(0.25) >= 1.0


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("easy_consistency_tuning", 4 / 3),  # 2F + B
        ("consistency_distillation", 6 / 3),  # 2F + B + 2 teacher
        ("progressive_distillation", 5 / 3),  # F + B + 2 teacher
        ("continuous_consistency", 5 / 3),  # F (JVP 2F) + B, and the forward of the value
        ("mean_flow", 3.5 / 3),
    ],
)
def test_predictions_are_those_of_the_cards(name: str, ratio: float) -> None:
    assert PREDICTIONS[name].ratio(0.25) == pytest.approx(ratio)


def test_a_cost_above_its_prediction_misses_its_bar() -> None:
    row = {"off_share": 0.25, "ratio": 3.5 / 3 * 1.14}
    good = method_cost.bars({"methods": {"mean_flow": row}})
    bad = method_cost.bars({"methods": {"mean_flow": {**row, "ratio": 3.5 / 3 * 1.16}}})
    assert [bar["reached"] for bar in (*good, *bad)] == [True, False]


def test_a_method_is_measured_over_a_cycle_of_its_players_at_its_own_share() -> None:
    game, flow = method_cost.Turn("dmd2"), method_cost.Turn("mean_flow")
    assert (game.cycle, flow.cycle) == (5, 1)
    assert flow.off == 0.25
    assert method_cost.Turn("flow_map_matching").off == 1.0
    # Weights, an average and two moments; with a fake score, its moments and a teacher, twice that.
    assert game.held_bytes() == 2 * flow.held_bytes()
    assert flow.working_bytes() > 0
