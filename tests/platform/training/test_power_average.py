import numpy as np
import pytest
import torch

from onestep.platform.training.power_average import (
    PowerProfile,
    Snapshot,
    coefficients,
    combine,
)


def weights_of(profile: PowerProfile, steps: int, total: int) -> np.ndarray:
    """Weight of each step of a run in the average after ``steps`` of them, by its own updates."""
    weights = np.zeros(total)
    for step in range(1, steps + 1):
        decay = profile.decay(step)
        weights *= decay
        weights[step - 1] += 1.0 - decay
    return weights


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25])
def test_a_profile_has_the_width_it_was_asked_for(width: float) -> None:
    profile = PowerProfile.of_width(width)
    assert profile.width == pytest.approx(width, rel=1e-9)
    weights = weights_of(profile, 20_000, 20_000)
    time = (np.arange(20_000) + 0.5) / 20_000
    mean = weights @ time
    assert weights.sum() == pytest.approx(1.0)
    assert np.sqrt(weights @ (time - mean) ** 2) == pytest.approx(width, rel=1e-3)


def test_known_widths_have_the_exponents_of_the_paper() -> None:
    assert PowerProfile.of_width(0.05).exponent == pytest.approx(16.97, abs=0.01)
    assert PowerProfile.of_width(0.10).exponent == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.26, float("nan")])
def test_a_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 0.25\], got"):
        PowerProfile.of_width(width)


def kept(total: int, snapshots: int) -> list[Snapshot]:
    steps = [round(total * (k + 1) / snapshots) for k in range(snapshots)]
    profiles = (PowerProfile.of_width(0.05), PowerProfile.of_width(0.10))
    return [Snapshot(profile=p, step=step) for step in steps for p in profiles]


def test_an_average_that_was_kept_is_given_back() -> None:
    snapshots = kept(1000, 8)
    factors = coefficients(snapshots, snapshots[-1])
    assert factors == pytest.approx([0.0] * (len(snapshots) - 1) + [1.0], abs=1e-6)


@pytest.mark.parametrize(("width", "limit"), [(0.07, 0.01), (0.15, 0.02), (0.20, 0.06)])
def test_an_average_that_was_not_kept_is_made_from_those_that_were(
    width: float, limit: float
) -> None:
    """The error of the weights in time, in their own norm; one average alone is far off."""
    total = 2000
    snapshots = kept(total, 16)
    wanted = Snapshot(profile=PowerProfile.of_width(width), step=total)
    have = np.array([weights_of(one.profile, one.step, total) for one in snapshots])
    want = weights_of(wanted.profile, total, total)

    def error(factors: list[float], rows: np.ndarray) -> float:
        return float(np.linalg.norm(np.array(factors) @ rows - want) / np.linalg.norm(want))

    assert error(coefficients(snapshots, wanted), have) <= limit
    assert error([1.0], have[-1:]) >= 5.0 * limit
    assert error([1.0], have[-2:-1]) >= 5.0 * limit


def test_weights_are_added_up_by_name() -> None:
    parts = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, -1.0])}]
    made = combine(parts, [0.25, 0.75])
    assert made["a"].dtype == torch.float32
    torch.testing.assert_close(made["a"], torch.tensor([2.5, -0.25]))


def test_nothing_kept_makes_nothing() -> None:
    with pytest.raises(ValueError, match="got none"):
        coefficients([], Snapshot(profile=PowerProfile(exponent=1.0), step=1))
