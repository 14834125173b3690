"""The vocabulary carries what later methods need: three small ones, defined here."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import (
    AbstractCoupling,
    CouplingState,
    IndependentCoupling,
    optimal_assignment,
)
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.method import AbstractMethod, Needs, View
from onestep.methods.core.ode import Dopri5, Euler, Heun, Midpoint, RungeKutta4
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.core.shape import sum_rows
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact, MethodContract
from onestep.tests.methods.core.contract import CouplingContract, moment

# A coupling with state: noise that is kept for each datum and improved whenever two data meet.


@final
@dataclass(frozen=True, kw_only=True)
class Loom(AbstractCoupling):
    """Each datum keeps its noise; the noises of a shard are swapped to the best assignment."""

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        return {
            "noise": torch.zeros(num_data, *shape, dtype=torch.float64),
            "is_kept": torch.zeros(num_data, dtype=torch.bool),
        }

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        fresh = now.rng.normal(*batch.x1.shape, dtype=torch.float64)
        kept = state["is_kept"][batch.index][:, None]
        noise = torch.where(kept, state["noise"][batch.index], fresh)
        rows = now.rng.rows_per_shard(len(batch))
        parts = zip(torch.split(batch.x1, rows), torch.split(noise, rows), strict=True)
        noise = torch.cat([x0[optimal_assignment(x1, x0)] for x1, x0 in parts])
        after = {
            "noise": state["noise"].index_copy(0, batch.index, noise),
            "is_kept": state["is_kept"].index_fill(0, batch.index, True),
        }
        return batch.with_noise(noise.to(batch.x1.dtype)), after


class TestLoom(CouplingContract):
    permutes = False

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return Loom()

    def test_a_datum_keeps_the_noise_that_the_state_holds(self) -> None:
        batch = self.batch(16)
        paired, state = Loom().pair(batch, Loom().initial(self.num_data, (2,)), moment(0))
        again, _ = Loom().pair(batch, state, moment(1))
        assert torch.equal(again.noise, paired.noise)
        assert int(state["is_kept"].sum()) == 16

    def test_the_distance_never_rises_and_falls_below_that_of_one_batch(self) -> None:
        """Every datum is visited once a round, in ever new company."""
        x1 = self.batch(self.num_data).x1
        state, costs = Loom().initial(self.num_data, (2,)), list[float]()
        for step in range(12):
            order = Rng.seeded(1, step=step).uniform(self.num_data).argsort()
            for k, rows in enumerate(torch.split(order, 16)):
                batch = Batch(x1=x1[rows], index=rows)
                _, state = Loom().pair(batch, state, moment(4 * step + k))
            costs.append((state["noise"] - x1).square().sum().item())
        assert all(a >= b - 1e-9 for a, b in pairwise(costs))
        assert costs[-1] < 0.95 * costs[0]


# A map that was trained to jump to the data alone is no teacher of velocities.


@pytest.mark.parametrize(
    "solver", [Euler(), Heun(), Midpoint(), RungeKutta4(), Dopri5()], ids=lambda s: type(s).__name__
)
def test_a_consistency_function_is_refused_as_a_velocity(solver: AbstractSampler) -> None:
    teacher = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(kind=DomainKind.TO_DATA))
    assert not teacher.domain.has_velocity
    with pytest.raises(ValueError, match="needs a map trained on the diagonal"):
        solver.check(teacher.domain)


# A stage of progressive distillation: two jumps of the frozen teacher become one.


@final
@dataclass(frozen=True, kw_only=True)
class Halving(AbstractMethod):
    """u(x, s, t) is what two jumps of the teacher give, on jumps of length 1 / steps."""

    coupling: AbstractCoupling = IndependentCoupling()
    steps: int = 4
    pieces: int = 2

    @property
    def domain(self) -> Domain:
        return Domain(kind=DomainKind.GRID, steps=self.steps)

    @property
    def needs(self) -> Needs:
        return Needs(frozen={"teacher": View.JUMP})

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        k = now.rng.integers(len(batch), below=self.steps)
        s = k.to(batch.x1.dtype) / self.steps
        t = s + 1.0 / self.steps
        x, _ = LinearPath().at(batch.noise, batch.x1, s)
        with torch.no_grad():
            end = self._two_jumps(nets, x, s, t, batch)
        u = nets.online(x, s, t, batch.condition)
        return Loss(terms={"halving": sum_rows((u - (end - x) * self.steps).square())}, times=s)

    def _two_jumps(self, nets: Nets, x: Tensor, s: Tensor, t: Tensor, batch: Batch) -> Tensor:
        for piece in range(self.pieces):
            a, b = s + (t - s) * piece / 2, s + (t - s) * (piece + 1) / 2
            x = nets.frozen["teacher"].jump(x, a, b, batch.condition)
        return x


class TestHalving(MethodContract):
    """Exact with the oracle as teacher; one jump too many or too few is noticed."""

    exactness: ClassVar[Exact] = Exact(control=Halving(pieces=3))

    @pytest.fixture
    def method(self) -> AbstractMethod:
        return Halving()
