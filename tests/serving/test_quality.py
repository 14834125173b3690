import pytest

from onestep.serving.quality import SMALLER_IS_BETTER, Curve, Quality, choose, curve_of

FRONTIER = (1, 2, 4, 8)


def chosen(
    quality: Quality,
    *,
    frontier: tuple[int, ...] = FRONTIER,
    second_s: float = 1.0,
    room_s: float = 1e9,
    ahead: float = 0.0,
) -> int:
    return choose(
        quality,
        frontier,
        default=3,
        seconds=lambda steps: second_s * steps,
        room_s=room_s,
        forwards_ahead=ahead,
    )


def test_a_step_that_is_not_better_than_fewer_is_never_chosen() -> None:
    values = {1: 0.6, 2: 0.7, 4: 0.3, 8: 0.3, 16: 0.2}
    assert Curve(metric="eval/fid", values=values).frontier == (1, 4, 16)
    assert Curve(metric="eval/coverage", values=values).frontier == (1, 2)
    assert Curve(metric="", values={}).frontier == ()


def test_the_first_metric_that_orders_images_decides_at_steps_that_are_served() -> None:
    curves = {
        "eval/1nn_accuracy": {1: 0.7},
        "eval/coverage": {1: 0.5, 2: 0.6},
        "eval/1nn_deviation": {1: 0.2, 2: 0.1, 3: 0.05},
        "eval/frechet_features": {9: 1.0},
    }
    curve = curve_of(curves, (1, 2, 4))
    assert (curve.metric, curve.values) == ("eval/1nn_deviation", {1: 0.2, 2: 0.1})
    assert (curve.told(2), curve.told(4)) == ("eval/1nn_deviation 0.1", "unmeasured")
    assert curve_of({"eval/1nn_accuracy": {1: 0.7}}, (1,)).frontier == ()


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("high", 8), ("hd", 8), ("low", 1), ("standard", 3), ("medium", 3), ("auto", 8)],
)
def test_a_quality_is_a_place_on_the_frontier(quality: Quality, steps: int) -> None:
    assert chosen(quality) == steps
    assert chosen(quality, frontier=()) == 3


@pytest.mark.parametrize(("room_s", "steps"), [(8.0, 8), (7.9, 4), (2.0, 2), (0.5, 1)])
def test_auto_takes_the_best_that_fits_and_others_do_not_look_at_the_time(
    room_s: float, steps: int
) -> None:
    assert chosen("auto", room_s=room_s) == steps
    assert chosen("high", room_s=room_s) == 8


@pytest.mark.parametrize(
    ("ahead", "steps"), [(0.0, 8), (1.9, 8), (2.0, 4), (3.9, 4), (4.0, 2), (8.0, 1), (1e6, 1)]
)
def test_auto_takes_fewer_as_the_queue_grows(ahead: float, steps: int) -> None:
    assert chosen("auto", ahead=ahead) == steps


def test_the_metrics_are_those_of_the_evaluation() -> None:
    from onestep.platform.evaluation.agreement import ClassAgreement
    from onestep.platform.evaluation.frechet import FrechetFeatures

    assert {*ClassAgreement().names, *FrechetFeatures().names} <= set(SMALLER_IS_BETTER)
