"""A student of a given teacher: the losses of consistency distillation on Gaussian pairs."""

import torch
from torch import Tensor

from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.pair_times import GridTimes, KarrasSpacing
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.exactness import ORACLE


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, data: GaussianMap = ORACLE) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def on(domain: Domain, data: GaussianMap = ORACLE) -> GaussianMap:
    """An exact map that says it was trained on a domain."""
    return GaussianMap(mean=data.mean, std=data.std, domain=domain)


def distilled(teacher: FlowMap, *, student: FlowMap = ORACLE, sigma_max: float = 80.0) -> Tensor:
    """Losses of a student on a grid of 640 steps, where the solver's error is below 1e-9."""
    times = GridTimes(spacing=KarrasSpacing(sigma_max=sigma_max), steps=Constant(value=640.0))
    nets = Nets(online=student, target=student, frozen={"teacher": teacher})
    return ConsistencyDistillation(times=times).loss(nets, pairs(256), moment(256)).total
