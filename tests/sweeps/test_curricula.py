import numpy as np
import pytest

from onestep.platform.training.assembly import Assembly, parts_of
from onestep.sweeps.curricula import curves_of, worth_showing
from onestep.sweeps.trial import experiment_of

_DIAGONAL = "method.times.diagonal"
_LINEAR = (
    "+method.times.diagonal={_target_:onestep.methods.core.schedule.Linear,"
    "start:0.9,end:0.3,until:0.5}"
)
_CONSTANT = "+method.times.diagonal={_target_:onestep.methods.core.schedule.Constant,value:0.7}"


def assembly(diagonal: str, samples: int = 10_000) -> Assembly:
    overrides = ("method=mean_flow", "data=moons", "net=mlp", f"~{_DIAGONAL}", diagonal)
    return parts_of(experiment_of((*overrides, f"training.samples={samples}")))


@pytest.fixture(scope="module")
def linear() -> Assembly:
    return assembly(_LINEAR)


@pytest.fixture(scope="module")
def constant() -> Assembly:
    return assembly(_CONSTANT)


def test_a_curve_goes_from_the_first_step_to_the_end_of_the_run(linear: Assembly) -> None:
    share, values = curves_of(linear)[_DIAGONAL]
    assert (share[0], share[-1]) == (0.0, 1.0)
    assert (values[0], values[-1]) == pytest.approx((0.9, 0.3))
    half = np.interp(0.25, share, values)
    assert half == pytest.approx(0.6, abs=0.01)
    assert np.interp(0.75, share, values) == pytest.approx(0.3)


def test_a_short_run_has_a_point_for_each_step() -> None:
    short = assembly(_LINEAR, samples=3 * 256)
    steps = short.experiment.training.steps
    share, _ = curves_of(short)[_DIAGONAL]
    assert len(share) == steps + 1


def test_schedules_are_shown_if_they_move_or_differ(linear: Assembly, constant: Assembly) -> None:
    flat = curves_of(constant)
    assert _DIAGONAL not in worth_showing({"trial 0": flat, "trial 1": flat})
    other = curves_of(assembly(_CONSTANT.replace("0.7", "0.8")))
    assert set(worth_showing({"trial 0": flat, "trial 1": other})[_DIAGONAL]) == {
        "trial 0",
        "trial 1",
    }
    assert _DIAGONAL in worth_showing({"trial 0": curves_of(linear)})
    without = {path: curve for path, curve in flat.items() if path != _DIAGONAL}
    shown = worth_showing({"trial 0": curves_of(linear), "trial 1": without})
    assert set(shown[_DIAGONAL]) == {"trial 0"}
