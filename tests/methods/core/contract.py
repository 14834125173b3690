"""What every path, coupling, law of times and sampler must satisfy; test classes inherit these."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.ode import AbstractRungeKutta
from onestep.methods.core.path import AbstractPath
from onestep.methods.core.record import Batch, Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.core.times import AbstractTimes, Interval
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.observed import ObservedMap

LEAST_P = 1e-4
"""Laws are refused below this probability; the seeds are fixed."""


def moment(step: int = 0, *, shards: tuple[int, ...] = (0,), total: int = 100) -> Moment:
    """A moment whose random numbers depend on the step and the shards."""
    return Moment(step=step, total=total, rng=Rng.seeded(6, step=step, shards=shards))


class PathContract:
    """Give the fixture ``path``.

    Attributes:
        noise_gap: How far the path may be from noise at t = 0, in its coefficients.
        data_gap: How far it may be from data at its last time.
    """

    noise_gap: ClassVar[float] = 1e-15
    data_gap: ClassVar[float] = 1e-15

    @pytest.fixture
    def path(self) -> AbstractPath:
        """The path under test."""
        raise NotImplementedError

    def test_it_starts_at_noise(self, path: AbstractPath) -> None:
        at = path.coefficients(torch.zeros(1, dtype=torch.float64))
        assert abs(at.alpha.item() - 1.0) <= self.noise_gap
        assert abs(at.beta.item()) <= self.noise_gap

    def test_it_ends_at_data(self, path: AbstractPath) -> None:
        at = path.coefficients(torch.tensor([path.t_hi], dtype=torch.float64))
        assert abs(at.alpha.item()) <= self.data_gap
        assert abs(at.beta.item() - 1.0) <= self.data_gap

    def test_noise_falls_and_data_rises_all_the_way(self, path: AbstractPath) -> None:
        at = path.coefficients(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))
        assert (at.alpha.diff() < 0).all()
        assert (at.beta.diff() > 0).all()
        assert (at.d_alpha < 0).all()
        assert (at.d_beta > 0).all()

    def test_the_velocity_is_the_slope_of_the_path(self, path: AbstractPath) -> None:
        rng, h = Rng.seeded(0), 1e-5
        x0, x1 = rng.normal(50, 3, dtype=torch.float64), rng.normal(50, 3, dtype=torch.float64)
        t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
        difference = (path.at(x0, x1, t + h).x - path.at(x0, x1, t - h).x) / (2.0 * h)
        torch.testing.assert_close(path.at(x0, x1, t).v, difference, atol=1e-7, rtol=1e-7)

    def test_the_coefficients_differentiate_to_their_derivatives(self, path: AbstractPath) -> None:
        t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
        at = path.coefficients(t)
        for k, derivative in ((0, at.d_alpha), (1, at.d_beta)):
            _, slope = derivative_along(
                lambda t, k=k: path.coefficients(t)[k], (t,), (torch.ones_like(t),)
            )
            torch.testing.assert_close(slope, derivative, atol=1e-12, rtol=1e-12)

    @pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
    def test_points_have_the_shape_and_precision_of_the_data(
        self, path: AbstractPath, shape: tuple[int, ...]
    ) -> None:
        x0, x1 = torch.zeros(5, *shape), torch.ones(5, *shape)
        x, v = path.at(x0, x1, torch.tensor([0.0, 0.3, 0.5, 0.9, path.t_hi]))
        assert x.shape == v.shape == x1.shape
        assert x.dtype == v.dtype == torch.float32
        assert x.isfinite().all()
        assert v.isfinite().all()


class CouplingContract:
    """Give the fixture ``coupling``.

    Attributes:
        permutes: Whether noise that comes with the batch stays within its shard, each row once.
        num_data: Size of the set for which a state is made.
    """

    permutes: ClassVar[bool] = True
    num_data: ClassVar[int] = 64

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        """The coupling under test."""
        raise NotImplementedError

    def batch(self, n: int, *, first: int = 0) -> Batch:
        """Labelled data with noise: rows first, ..., first + n - 1 of a fixed set."""
        rng = Rng.seeded(9)
        x1 = rng.normal(self.num_data, 2, dtype=torch.float64) * 0.5 + 1.0
        x0 = rng.normal(self.num_data, 2, dtype=torch.float64)
        rows = torch.arange(first, first + n)
        return Batch(x1=x1[rows], x0=x0[rows], index=rows, condition=Condition(label=rows % 3))

    def test_the_data_stay_as_they_are(self, coupling: AbstractCoupling) -> None:
        batch = self.batch(16)
        before = batch.x1.clone(), batch.noise.clone()
        paired, _ = coupling.pair(batch, coupling.initial(self.num_data, (2,)), moment())
        assert torch.equal(paired.x1, before[0])
        assert torch.equal(batch.noise, before[1])
        assert torch.equal(paired.index, batch.index)
        assert paired.condition == batch.condition
        assert paired.noise.shape == batch.x1.shape
        assert paired.noise.dtype == batch.x1.dtype

    def test_every_noise_is_used_once_within_its_shard(self, coupling: AbstractCoupling) -> None:
        if not self.permutes:
            pytest.skip("the coupling supplies noise of its own")
        batch, state = self.batch(32), coupling.initial(self.num_data, (2,))
        paired, _ = coupling.pair(batch, state, moment(shards=(0, 1)))
        for shard in (slice(0, 16), slice(16, 32)):
            got = paired.noise[shard][:, 0].sort().values
            assert torch.equal(got, batch.noise[shard][:, 0].sort().values)

    def test_a_batch_of_one_keeps_its_noise(self, coupling: AbstractCoupling) -> None:
        if not self.permutes:
            pytest.skip("the coupling supplies noise of its own")
        batch = self.batch(1)
        paired, _ = coupling.pair(batch, coupling.initial(self.num_data, (2,)), moment())
        assert torch.equal(paired.noise, batch.noise)

    def test_the_same_moment_gives_the_same_pairs(self, coupling: AbstractCoupling) -> None:
        state = coupling.initial(self.num_data, (2,))
        first, _ = coupling.pair(self.batch(16), state, moment(3))
        again, _ = coupling.pair(self.batch(16), state, moment(3))
        assert torch.equal(first.noise, again.noise)

    def test_the_state_survives_a_checkpoint(self, coupling: AbstractCoupling) -> None:
        state = coupling.initial(self.num_data, (2,))
        _, state = coupling.pair(self.batch(16), state, moment(0))
        stored = {name: part.clone() for name, part in state.items()}
        went_on, end = coupling.pair(self.batch(16), state, moment(1))
        resumed, stored_end = coupling.pair(self.batch(16), stored, moment(1))
        assert torch.equal(went_on.noise, resumed.noise)
        assert end.keys() == stored_end.keys()
        assert all(torch.equal(end[name], stored_end[name]) for name in end)

    def test_a_step_leaves_the_old_state_alone(self, coupling: AbstractCoupling) -> None:
        state = coupling.initial(self.num_data, (2,))
        before = {name: part.clone() for name, part in state.items()}
        coupling.pair(self.batch(16), state, moment())
        assert all(torch.equal(before[name], state[name]) for name in before)

    def test_how_shards_lie_on_workers_changes_nothing(self, coupling: AbstractCoupling) -> None:
        state = coupling.initial(self.num_data, (2,))
        whole, _ = coupling.pair(self.batch(32), state, moment(shards=(0, 1, 2, 3)))
        first, _ = coupling.pair(self.batch(16), state, moment(shards=(0, 1)))
        second, _ = coupling.pair(self.batch(16, first=16), state, moment(shards=(2, 3)))
        assert torch.equal(torch.cat([first.noise, second.noise]), whole.noise)


Cdf = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]


class TimesContract:
    """Give the fixture ``times`` and the laws that it declares.

    Attributes:
        off_share: Share of rows off the diagonal.
        laws: Distribution functions of the times that are continuous: ``start`` and ``end`` off
            the diagonal, ``diagonal`` on it.
        atoms: Chance of each (s, t) off the diagonal, if they are finitely many.
    """

    off_share: ClassVar[float]
    laws: ClassVar[Mapping[str, Cdf]] = {}
    atoms: ClassVar[Mapping[tuple[float, float], float] | None] = None

    @pytest.fixture
    def times(self) -> AbstractTimes:
        """The law under test."""
        raise NotImplementedError

    def test_times_are_in_order_inside_the_unit_interval(self, times: AbstractTimes) -> None:
        for step in range(5):
            drawn = times.draw(1024, moment(step), dtype=torch.float64)
            assert (drawn.s >= 0.0).all()
            assert (drawn.s <= drawn.t).all()
            assert (drawn.t <= 1.0).all()

    def test_every_jump_lies_in_the_domain_that_the_law_covers(self, times: AbstractTimes) -> None:
        covers = times.covers
        if covers is None:
            pytest.skip("the law covers no domain")
        for step in range(5):
            drawn = times.draw(256, moment(step), dtype=torch.float64)
            assert all(map(covers.admits, drawn.s.tolist(), drawn.t.tolist()))

    def test_the_rows_off_the_diagonal_are_a_fixed_count_of_each_shard(
        self, times: AbstractTimes
    ) -> None:
        for step in range(5):
            drawn = times.draw(64, moment(step, shards=(0, 1, 2, 3)))
            assert drawn.off_per_shard == round(16 * self.off_share)
            assert len(drawn.off_rows) + len(drawn.diagonal_rows) == 64
            on = drawn.diagonal_rows
            assert torch.equal(drawn.s[on], drawn.t[on])
            both = torch.cat([drawn.off_rows, on]).sort().values
            assert torch.equal(both, torch.arange(64))

    def samples(self, times: AbstractTimes) -> tuple[Interval, dict[str, Tensor]]:
        drawn = times.draw(8192, moment(), dtype=torch.float64)
        off, on = drawn.off_rows, drawn.diagonal_rows
        return drawn, {"start": drawn.s[off], "end": drawn.t[off], "diagonal": drawn.s[on]}

    def test_the_times_follow_the_declared_laws(self, times: AbstractTimes) -> None:
        drawn, samples = self.samples(times)
        assert self.laws or self.atoms
        for name, cdf in self.laws.items():
            assert ks(samples[name], cdf) > LEAST_P
        if self.atoms is not None:
            off = drawn.off_rows
            assert chi_square(drawn.s[off], drawn.t[off], self.atoms) > LEAST_P

    def test_the_laws_can_be_told_from_others(self, times: AbstractTimes) -> None:
        """The tests of law have the power to refuse times that are moved a little."""
        _, samples = self.samples(times)
        for name, cdf in self.laws.items():
            assert ks(samples[name] ** 1.2, cdf) < LEAST_P

    def test_how_shards_lie_on_workers_changes_nothing(self, times: AbstractTimes) -> None:
        whole = times.draw(64, moment(shards=(0, 1, 2, 3)))
        first = times.draw(32, moment(shards=(0, 1)))
        second = times.draw(32, moment(shards=(2, 3)))
        assert torch.equal(torch.cat([first.s, second.s]), whole.s)
        assert torch.equal(torch.cat([first.t, second.t]), whole.t)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_times_have_the_precision_asked_for(
        self, times: AbstractTimes, dtype: torch.dtype
    ) -> None:
        drawn = times.draw(16, moment(), dtype=dtype)
        assert drawn.s.dtype == drawn.t.dtype == dtype

    def test_the_law_is_a_frozen_dataclass(self, times: AbstractTimes) -> None:
        assert dataclasses.is_dataclass(times)
        assert hash(times) == hash(dataclasses.replace(times))


def ks(sample: Float[Tensor, " n"], cdf: Cdf) -> float:
    """Probability of a sample as far from a continuous law, by Kolmogorov and Smirnov."""
    return float(stats.kstest(sample.numpy(), lambda t: cdf(torch.as_tensor(t)).numpy()).pvalue)


def chi_square(s: Tensor, t: Tensor, atoms: Mapping[tuple[float, float], float]) -> float:
    """Probability of counts as far from a discrete law; counts of each length are fixed."""
    counts = {atom: 0 for atom in atoms}
    for start, end in zip(s.tolist(), t.tolist(), strict=True):
        counts[(start, end)] += 1
    expected = [len(s) * share for share in atoms.values()]
    lengths = len({end - start for start, end in atoms})
    if len(atoms) == lengths:
        return float(list(counts.values()) == expected)
    found = stats.chisquare(list(counts.values()), expected, ddof=lengths - 1)
    return float(found.pvalue)


ORACLE = GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4])


class SamplerContract:
    """Give ``sampler``, which builds one of a number of steps, and what it declares.

    A Runge-Kutta rule declares its order of convergence itself.

    Attributes:
        steps: The two numbers of steps between which the order is measured.
        surpasses: Whether the order on the Gaussian field may be higher than declared.
        refused: Domains of maps that it must refuse.
        accepted: Domain of the map that its evaluations are counted on.
        oracle: The exact map that it is tried on.
    """

    steps: ClassVar[tuple[int, int]] = (32, 64)
    surpasses: ClassVar[bool] = False
    refused: ClassVar[tuple[Domain, ...]]
    accepted: ClassVar[Domain] = Domain()
    oracle: ClassVar[GaussianMap] = ORACLE

    def sampler(self, steps: int) -> AbstractSampler:
        """The sampler under test, with this many steps."""
        raise NotImplementedError

    def noise(self, sampler: AbstractSampler, n: int = 32) -> Float[Tensor, "draws n 2"]:
        rng = Rng.seeded(12)
        return torch.stack([rng.normal(n, 2, dtype=torch.float64) for _ in range(sampler.draws)])

    def error(self, steps: int) -> float:
        """Root mean square distance to the exact samples."""
        sampler = self.sampler(steps)
        noise = self.noise(sampler)
        want = self.oracle.std * noise[0] + self.oracle.mean
        return (sampler.sample(self.oracle, noise) - want).square().mean().sqrt().item()

    def test_the_error_falls_with_the_declared_order(self) -> None:
        rule = self.sampler(1)
        if not isinstance(rule, AbstractRungeKutta):
            pytest.skip("no order is declared")
        coarse, fine = self.steps
        slope = math.log(self.error(coarse) / self.error(fine)) / math.log(fine / coarse)
        assert slope >= rule.tableau.order - 0.3
        assert self.surpasses or slope <= rule.tableau.order + 0.3

    def test_the_evaluations_are_as_declared(self) -> None:
        for steps in (1, 2, 4):
            sampler = self.sampler(steps)
            counting = ObservedMap(self.oracle, domain=self.accepted)
            sampler.sample(counting, self.noise(sampler))
            assert sampler.evaluations(self.accepted) in (None, len(counting.calls))

    def test_samples_have_the_shape_of_the_noise_and_no_graph(self) -> None:
        sampler = self.sampler(2)
        noise = self.noise(sampler).requires_grad_()
        got = sampler.sample(self.oracle, noise)
        assert got.shape == (32, 2)
        assert got.dtype == torch.float64
        assert not got.requires_grad

    def test_a_sample_does_not_depend_on_its_company(self) -> None:
        sampler = self.sampler(4)
        if sampler.evaluations(self.accepted) is None:
            pytest.skip("the steps depend on the whole batch")
        noise = self.noise(sampler)
        some = sampler.sample(self.oracle, noise[:, :5])
        torch.testing.assert_close(some, sampler.sample(self.oracle, noise)[:5], atol=1e-12, rtol=0)

    def test_maps_outside_the_domain_are_refused(self) -> None:
        sampler = self.sampler(3)
        for domain in self.refused:
            counting = ObservedMap(self.oracle, domain=domain)
            with pytest.raises(ValueError, match=f"got one with domain {domain.kind}"):
                sampler.sample(counting, self.noise(sampler))
            assert len(counting.calls) == 0

    def test_the_wrong_number_of_draws_is_refused(self) -> None:
        sampler = self.sampler(2)
        noise = torch.zeros(sampler.draws + 1, 4, 2)
        with pytest.raises(ValueError, match=f"takes {sampler.draws} draws of noise, got"):
            sampler.sample(self.oracle, noise)
