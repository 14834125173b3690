"""Which sampler a map is given where nobody names one."""

from typing import Final

from .flow_map import Domain, DomainKind
from .grid import HalvedEndGrid, UniformGrid
from .ode import Euler, Heun, HeunThenEuler
from .sampler import AbstractSampler, AnchoredJumps, Jumps, Renoise, finishing

_LEAST_FOR_HEUN: Final = 4
"""With fewer evaluations of a velocity, short Euler steps beat half as many of Heun's; from here on
Heun's are better (benchmarks/few_steps.py)."""


def sampler_for(domain: Domain, nfe: int) -> AbstractSampler | None:
    """The sampler that a domain allows at a number of evaluations, all of which it spends.

    Args:
        domain: The map's domain.
        nfe: Evaluations for one sample, at least 1.

    Returns:
        Jumps where the domain has them, from the noise kept or fresh as it was trained, an ODE
        solver for a velocity, or None if there is no
        sampler: a one-step generator has one evaluation only, a dyadic map a power of two, and
        a map whose range ends before the data needs a velocity there and an evaluation of it.
    """
    steps = nfe - finishing(domain)
    if steps < 1:
        return None
    sampler = _fastest(domain, steps)
    try:
        sampler.check(domain)
    except ValueError:
        return None
    return sampler


def _fastest(domain: Domain, steps: int) -> AbstractSampler:
    grid = UniformGrid(steps=steps)
    match domain.kind:
        case DomainKind.TO_DATA if steps > 1 and domain.has_paired_noise:
            return AnchoredJumps(grid=grid)
        case DomainKind.TO_DATA if steps > 1:
            return Renoise(grid=grid)
        case DomainKind.DIAGONAL if steps >= _LEAST_FOR_HEUN and steps % 2 == 0:
            return Heun(grid=UniformGrid(steps=steps // 2))
        case DomainKind.DIAGONAL if steps > _LEAST_FOR_HEUN:
            return HeunThenEuler(grid=HalvedEndGrid(steps=steps // 2 + 1))
        case DomainKind.DIAGONAL:
            return Euler(grid=grid)
        case _:
            return Jumps(grid=grid)
