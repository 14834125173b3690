import math

import pytest

from onestep.platform.registry.errors import PromotionRefused
from onestep.platform.registry.gate import Gate


@pytest.mark.parametrize(
    ("gate", "passing", "failing"),
    [
        (Gate(metric="m", at_most=1.0), [1.0, -5.0], [1.001, math.nan, math.inf]),
        (Gate(metric="m", at_least=1.0), [1.0, 5.0], [0.999, math.nan, -math.inf]),
        (Gate(metric="m", at_least=0.0, at_most=1.0), [0.0, 0.5, 1.0], [-0.1, 1.1, math.nan]),
    ],
)
def test_a_gate_opens_within_its_bounds_only(gate, passing, failing):
    for value in passing:
        gate.check({"m": value}, model="digits/1")
    for value in failing:
        with pytest.raises(PromotionRefused, match=r"digits/1 has m = .*, the gate is"):
            gate.check({"m": value}, model="digits/1")


def test_a_model_without_the_metric_is_refused():
    with pytest.raises(PromotionRefused, match=r"no metric 'm', .*; recorded: a, b"):
        Gate(metric="m", at_most=1.0).check({"b": 0.0, "a": 0.0}, model="digits/1")


def test_a_gate_reads_as_its_condition():
    assert str(Gate(metric="m", at_most=0.62)) == "m <= 0.62"
    assert str(Gate(metric="m", at_least=0.0, at_most=1.0)) == "0 <= m <= 1"


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "needs a finite at_most or at_least"),
        ({"at_most": math.inf}, "needs a finite"),
        ({"at_least": 2.0, "at_most": 1.0}, "must have at_least <= at_most"),
    ],
)
def test_a_gate_that_tells_nothing_is_refused(bounds, message):
    with pytest.raises(ValueError, match=message):
        Gate(metric="m", **bounds)
