from dataclasses import replace
from typing import Final

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from onestep.sweeps.charts import against_key, losses, pareto
from onestep.sweeps.cost import Cost
from onestep.sweeps.objective import Mode, Number, Objective, Objectives
from onestep.sweeps.record import Outcome, TrialRecord

_QUALITY: Final = Objective(name="eval/w2", nfe=1, mode=Mode.MAX)
_BOTH: Final = Objectives(by_label={"quality": _QUALITY, "cost": Objective(name="cost/training_s")})


def trial(number: int, *values: float, outcome: Outcome = Outcome.FINISHED) -> TrialRecord:
    return TrialRecord(
        number=number,
        overrides=(),
        values={"x": 10.0**-number, "kind": "b"},
        outcome=outcome,
        results=tuple(Number(value=one, low=one - 0.5, high=one + 0.25) for one in values),
        samples=1000,
        cost=Cost(),
        reason="",
    )


def test_a_key_is_drawn_for_the_trials_that_have_it_on_the_axis_of_its_law() -> None:
    trials = [trial(0, 1.0), trial(1, 2.0, outcome=Outcome.STOPPED)]
    trials.append(replace(trial(2, 3.0), values={"kind": "b"}))
    (axis,) = against_key(trials, _QUALITY, "x", FloatDistribution(1e-3, 1.0, log=True)).axes
    assert axis.get_xscale() == "log"
    points = [(*bars.lines[0].get_xdata(), *bars.lines[0].get_ydata()) for bars in axis.containers]
    assert points == [(1.0, 1.0), (0.1, 2.0)]
    low, high = axis.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (0.5, 1.25)

    (axis,) = against_key(trials, _QUALITY, "kind", CategoricalDistribution(("a", "b"))).axes
    assert [one.get_text() for one in axis.get_xticklabels()] == ["a", "b"]
    assert {float(x) for bars in axis.containers for x in bars.lines[0].get_xdata()} == {1.0}


def test_the_pareto_set_is_that_of_finished_trials_each_objective_its_own_way() -> None:
    # Much quality and little cost: 0 and 2 are in the set, 3 would be, had it finished.
    points = [(2.0, 5.0), (1.0, 6.0), (3.0, 9.0)]
    trials = [trial(number, *values) for number, values in enumerate(points)]
    trials.append(trial(3, 9.0, 1.0, outcome=Outcome.STOPPED))
    (axis,) = pareto(trials, _BOTH, place=1).axes
    assert [one.get_text() for one in axis.texts] == ["0", "2"]
    (line,) = (one for one in axis.get_lines() if one.get_markersize() == 9)
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(2.0, 5.0), (3.0, 9.0)]


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.01, "log")])
def test_losses_of_leaders_are_named_in_their_order(last: float, scale: str) -> None:
    curves = {number: [(64, 1.0), (128, last)] for number in range(4)}
    (axis,) = losses(curves, leaders=[2, 0]).axes
    legend = axis.get_legend()
    assert legend is not None
    assert [one.get_text() for one in legend.get_texts()] == ["trial 2", "trial 0"]
    assert len(axis.get_lines()) == 4
    assert axis.get_yscale() == scale
