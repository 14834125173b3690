"""A map that was trained to jump to the data alone is no teacher of velocities."""

import pytest

from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.ode import Dopri5, Euler, Heun, Midpoint, RungeKutta4
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.oracle import GaussianMap


@pytest.mark.parametrize(
    "solver", [Euler(), Heun(), Midpoint(), RungeKutta4(), Dopri5()], ids=lambda s: type(s).__name__
)
def test_a_consistency_function_is_refused_as_a_velocity(solver: AbstractSampler) -> None:
    teacher = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(kind=DomainKind.TO_DATA))
    assert not teacher.domain.has_velocity
    with pytest.raises(ValueError, match="needs a map trained on the diagonal"):
        solver.check(teacher.domain)
