"""Probes: cheap questions to the served average of a run, always on the same noise and data.

Each gives numbers that grow as a map gets worse, in units of the data, so that one bound serves
every data set. A probe that a map's domain does not allow is left out.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.flow_map import Domain, DomainKind, FlowMap
from ...methods.core.noise import draw_noise
from ...methods.core.path import LINEAR, LinearPath
from ...methods.core.rng import Purpose
from ...methods.core.sampler import AbstractSampler
from ...methods.core.sampler_choice import sampler_for
from ..evaluation.kernel import energy_distance
from ..evaluation.trajectory import allowed_triples, semigroup_error

ROWS: Final = 256
"""Points of each set that is compared."""
MANY_STEPS: Final = (4, 2, 8, 16)
"""Numbers of evaluations, of which the first that a map has a sampler for is taken."""
_COMPOSED: Final = 32
"""Points whose jumps are composed; each takes some twenty evaluations."""
_TANGENTS: Final = 64
_H: Final = 1e-2
"""Step of a difference in time: large enough for single precision."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """What every round of probes is asked on.

    Attributes:
        noise: Fixed noise, as many draws as any sampler takes.
        data: Fixed data.
        condition: Condition of each of the data, and so of each sample.
        spread: Root mean square of the data about their mean, per coordinate.
        unit: Energy distance between the data and their mean, a single point.
        at_noise: Energy distance between the data and the noise, in this unit.
    """

    noise: Float[Tensor, "draws b *d"]
    data: Float[Tensor, " b *d"]
    condition: Condition | None
    spread: float
    unit: float
    at_noise: float

    @classmethod
    def of(
        cls, data: Float[Tensor, " b *d"], condition: Condition | None, *, draws: int, seed: int
    ) -> Self:
        """The ground on some data.

        Args:
            data: The data; they are where and in which type the map is.
            condition: Condition of each, or None.
            draws: Draws of noise for each sample.
            seed: Seed of the run, of which the noise is a stream of its own.

        Returns:
            The ground.

        Raises:
            ValueError: If all data are the same.
        """
        shape = tuple(data.shape[1:])
        noise = draw_noise(len(data), shape, seed=seed, draws=draws, purpose=Purpose.PROBES)
        flat, spread = data.flatten(1).double(), _spread(data)
        if spread <= 0.0:
            raise ValueError("guardian.every needs data that vary, got one point again and again")
        noise = noise.to(data)
        middle = flat.mean(0, keepdim=True).expand_as(flat)
        unit = energy_distance(middle, flat)
        return cls(
            noise=noise,
            data=data,
            condition=condition,
            spread=spread,
            unit=unit,
            at_noise=energy_distance(noise[0].flatten(1), flat) / unit,
        )

    def apart(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> float:
        """Energy distance of two sets: 1 where one is the data, the other their mean alone."""
        return energy_distance(x.flatten(1), y.flatten(1)) / self.unit


class AbstractProbe(ABC):
    """A question to a map. Subclasses are frozen and keep nothing: equal maps, equal answers."""

    @abstractmethod
    def applies(self, domain: Domain) -> bool:
        """Whether maps of a domain have the property that is asked for."""

    @abstractmethod
    def ask(self, flow_map: FlowMap, ground: Ground) -> Mapping[str, float]:
        """The answers by name, without a graph.

        Args:
            flow_map: A map in evaluation mode.
            ground: Noise and data.
        """


@final
@dataclass(frozen=True, kw_only=True)
class Samples(AbstractProbe):
    """How far samples of one step and of several lie from data, and from each other.

    Velocities are asked for several steps alone, unless they are straight: one Euler step along a
    curved path is wrong however well they are trained.
    """

    def applies(self, domain: Domain) -> bool:
        """Every map has a sampler."""
        return bool(_samplers(domain))

    def ask(self, flow_map: FlowMap, ground: Ground) -> Mapping[str, float]:
        """``one_step``, ``many_steps``, ``gap`` between the two, ``noise``, ``motion``, ``width``.

        Beside them stand how far noise lies from the data, and in spreads of these how far a map
        moves it, a shift of all of it left out, and how far apart the samples are.
        """
        made: dict[str, Tensor] = {}
        for name, sampler in _samplers(flow_map.domain).items():
            made[name] = sampler.sample(flow_map, ground.noise[: sampler.draws], ground.condition)
        found = {name: ground.apart(x, ground.data) for name, x in made.items()}
        first, *others = made.values()
        for other in others:
            found["gap"] = ground.apart(first, other)
        return {
            **found,
            "noise": ground.at_noise,
            "motion": _spread(first - ground.noise[0]) / ground.spread,
            "width": _spread(first) / ground.spread,
        }


@final
@dataclass(frozen=True, kw_only=True)
class Composition(AbstractProbe):
    """How far a jump lies from the two jumps that it is made of, in spreads of the data."""

    def applies(self, domain: Domain) -> bool:
        """Where all three jumps were trained: not for velocities, nor for jumps to data alone."""
        return bool(allowed_triples(domain))

    def ask(self, flow_map: FlowMap, ground: Ground) -> Mapping[str, float]:
        """``composition``, the median over trajectories."""
        rows = slice(0, _COMPOSED)
        condition = None if ground.condition is None else ground.condition[rows]
        error = semigroup_error(flow_map, ground.noise[0, rows], condition)
        return {"composition": float(error.median()) / ground.spread}


@final
@dataclass(frozen=True, kw_only=True)
class Tangent(AbstractProbe):
    """How fast the end of a jump moves as its start walks from noise to a datum.

    An exact map moves by what the datum's own velocity has beyond that of the flow. A network whose
    embedding of time has grown rough moves much faster.

        |X(s + h, t)(x(s + h)) - X(s, t)(x(s))| / h,   x(s) = (1 - s) x0 + s x1
    """

    def applies(self, domain: Domain) -> bool:
        """Maps of any start time along straight paths."""
        kinds = (DomainKind.TRIANGLE, DomainKind.TO_DATA)
        return domain.kind in kinds and domain.path == LINEAR

    def ask(self, flow_map: FlowMap, ground: Ground) -> Mapping[str, float]:
        """``tangent`` and ``tangent_95``, median and 95th percentile, in spreads of the data."""
        domain, rows = flow_map.domain, slice(0, _TANGENTS)
        x0, x1 = ground.noise[0, rows], ground.data[rows]
        condition = None if ground.condition is None else ground.condition[rows]
        end = 1.0 if domain.kind is DomainKind.TO_DATA else domain.t_hi
        share = (torch.arange(len(x0), device=x0.device, dtype=x0.dtype) + 0.5) / len(x0)
        s = domain.t_lo + share * (domain.t_hi - domain.t_lo - _H)
        t = torch.full_like(s, end)
        with torch.no_grad():
            ends = [
                flow_map.jump(LinearPath().at(x0, x1, start).x, start, t, condition)
                for start in (s, s + _H)
            ]
        speed = (ends[1] - ends[0]).flatten(1).double().square().mean(1).sqrt() / _H
        low, high = torch.quantile(speed / ground.spread, speed.new_tensor([0.5, 0.95])).tolist()
        return {"tangent": low, "tangent_95": high}


PROBES: Final[tuple[AbstractProbe, ...]] = (Samples(), Composition(), Tangent())


def probes_of(domain: Domain) -> tuple[AbstractProbe, ...]:
    """The probes that a map's domain allows."""
    return tuple(probe for probe in PROBES if probe.applies(domain))


def draws_of(domain: Domain) -> int:
    """Draws of noise that the probes of a domain take for each sample."""
    return max((sampler.draws for sampler in _samplers(domain).values()), default=1)


def ask_all(probes: Sequence[AbstractProbe], flow_map: FlowMap, ground: Ground) -> dict[str, float]:
    """The answers of several probes by name."""
    return {name: value for probe in probes for name, value in probe.ask(flow_map, ground).items()}


def _spread(x: Float[Tensor, " b *d"]) -> float:
    """Root mean square about the mean, per coordinate."""
    flat = x.flatten(1).double()
    return float((flat - flat.mean(0)).square().mean().sqrt())


def _samplers(domain: Domain) -> dict[str, AbstractSampler]:
    one = None if domain.kind is DomainKind.DIAGONAL else sampler_for(domain, 1)
    if domain.is_straight:
        one = sampler_for(domain, 1)
    found = (sampler_for(domain, nfe) for nfe in MANY_STEPS)
    many = next((sampler for sampler in found if sampler is not None), None)
    named = {"one_step": one, "many_steps": many}
    return {name: sampler for name, sampler in named.items() if sampler is not None}
