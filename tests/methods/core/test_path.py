"""Every path keeps the contract of paths."""

import pytest
import torch

from onestep.methods.core.path import (
    AbstractPath,
    LinearPath,
    LinearVariancePreservingPath,
    LipmanPath,
    PolynomialPath,
    TrigonometricPath,
    VariancePreservingPath,
)
from onestep.tests.methods.core.contract import PathContract


class TestLinearPath(PathContract):
    @pytest.fixture
    def path(self) -> AbstractPath:
        return LinearPath()

    def test_the_velocity_is_the_chord(self) -> None:
        x0, x1 = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
        x, v = LinearPath().at(x0, x1, torch.tensor([0.25]))
        assert torch.equal(v, x1 - x0)
        assert torch.equal(x, torch.tensor([[1.5, 1.25]]))


class TestLipmanPath(PathContract):
    data_gap = 1e-4 + 1e-12

    @pytest.fixture
    def path(self) -> AbstractPath:
        return LipmanPath()

    def test_the_velocity_is_the_target_of_the_paper(self) -> None:
        """(x1 - (1 - sigma) x) / (1 - (1 - sigma) t)."""
        x0, x1 = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[3.0, -1.0]]).double()
        for sigma in (0.0, 1e-4, 0.3):
            x, v = LipmanPath(sigma_min=sigma).at(x0, x1, torch.tensor([0.25]).double())
            want = (x1 - (1.0 - sigma) * x) / (1.0 - (1.0 - sigma) * 0.25)
            torch.testing.assert_close(v, want, atol=1e-12, rtol=1e-12)

    def test_without_a_rest_it_is_the_linear_path(self) -> None:
        t = torch.linspace(0, 1, 7, dtype=torch.float64)
        found, linear = LipmanPath(sigma_min=0.0).coefficients(t), LinearPath().coefficients(t)
        for got, want in zip(found, linear, strict=True):
            assert torch.equal(got, want)
        assert LipmanPath(sigma_min=0.0).name == LinearPath().name

    def test_a_rest_out_of_range_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"sigma_min in \[0, 1\), got 1\.0"):
            LipmanPath(sigma_min=1.0)


class TestTrigonometricPath(PathContract):
    @pytest.fixture
    def path(self) -> AbstractPath:
        return TrigonometricPath()

    def test_the_variance_of_independent_unit_pairs_is_kept(self) -> None:
        at = TrigonometricPath().coefficients(torch.linspace(0, 1, 11, dtype=torch.float64))
        torch.testing.assert_close(at.alpha**2 + at.beta**2, torch.ones(11, dtype=torch.float64))


class TestPolynomialPath(PathContract):
    @pytest.fixture(params=[1.0, 1.5, 3.0])
    def path(self, request: pytest.FixtureRequest) -> AbstractPath:
        return PolynomialPath(power=request.param)

    def test_the_first_power_is_the_linear_path(self) -> None:
        t = torch.linspace(0, 1, 7, dtype=torch.float64)
        first, linear = PolynomialPath(power=1.0).coefficients(t), LinearPath().coefficients(t)
        for got, want in zip(first, linear, strict=True):
            assert torch.equal(got, want)
        assert PolynomialPath(power=1.0).name == LinearPath().name

    def test_a_power_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"power of at least 1, got 0\.5"):
            PolynomialPath(power=0.5)


class TestLinearVariancePreservingPath(PathContract):
    data_gap = 0.0045

    @pytest.fixture
    def path(self) -> AbstractPath:
        return LinearVariancePreservingPath()

    def test_the_variance_of_independent_unit_pairs_is_kept(self) -> None:
        t = torch.linspace(0, 1, 11, dtype=torch.float64)
        at = LinearVariancePreservingPath().coefficients(t)
        torch.testing.assert_close(at.alpha**2 + at.beta**2, torch.ones(11, dtype=torch.float64))

    def test_times_after_the_last_finite_one_are_read_as_it(self) -> None:
        path = LinearVariancePreservingPath()
        last, end = path.coefficients(torch.tensor([path.t_hi, 1.0], dtype=torch.float64)).d_alpha
        assert end.isfinite()
        assert end == last


class TestVariancePreservingPath(PathContract):
    noise_gap = 0.0066
    data_gap = 0.0011

    @pytest.fixture
    def path(self) -> AbstractPath:
        return VariancePreservingPath()

    def test_the_variance_of_independent_unit_pairs_is_kept(self) -> None:
        at = VariancePreservingPath().coefficients(torch.linspace(0, 1, 11, dtype=torch.float64))
        torch.testing.assert_close(at.alpha**2 + at.beta**2, torch.ones(11, dtype=torch.float64))

    def test_the_noise_level_at_the_noise_end_is_that_of_the_paper(self) -> None:
        """sigma = alpha / beta is 152.2 for the rates 0.1 and 20."""
        at = VariancePreservingPath().coefficients(torch.zeros(1, dtype=torch.float64))
        assert (at.alpha / at.beta).item() == pytest.approx(152.2, abs=0.05)

    def test_times_after_the_last_finite_one_are_read_as_it(self) -> None:
        path = VariancePreservingPath()
        last, end = path.coefficients(torch.tensor([path.t_hi, 1.0], dtype=torch.float64)).d_alpha
        assert end.isfinite()
        assert end == last

    def test_rates_out_of_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"0 < beta_min < beta_max, got 2\.0 and 1\.0"):
            VariancePreservingPath(beta_min=2.0, beta_max=1.0)


def test_paths_that_differ_have_names_that_differ() -> None:
    names = [
        LinearPath().name,
        LipmanPath().name,
        LipmanPath(sigma_min=0.01).name,
        LinearVariancePreservingPath().name,
        TrigonometricPath().name,
        PolynomialPath(power=1.5).name,
        PolynomialPath(power=2).name,
        VariancePreservingPath().name,
        VariancePreservingPath(beta_max=10.0).name,
    ]
    assert len(set(names)) == len(names)
    assert PolynomialPath(power=2).name == PolynomialPath(power=2.0).name
