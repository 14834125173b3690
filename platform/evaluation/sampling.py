"""Samples of a map for an evaluation: which sampler, from which noise, under which condition."""

from collections.abc import Callable, Iterable
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.flow_map import Domain, FlowMap
from ...methods.core.noise import draw_noise
from ...methods.core.sampler import AbstractSampler
from ...methods.core.sampler_choice import sampler_for
from ..data.latent_space import LatentSpace

Finish = Callable[[Tensor], Tensor]
"""What becomes of samples at the end: they are clipped, decoded, or left as they are."""
_BATCH: Final = 512
_SHOWN_NFES: Final = 16
_FINISHED: Final = 64  # decoded images at a time, which may be much larger than latents


@final
class SamplesNotFinite(ValueError):
    """A map gave infinite or undefined samples; the message says how many."""


def samplers_at(
    domain: Domain, nfes: Iterable[int], *, named: AbstractSampler | None = None
) -> list[tuple[int, AbstractSampler]]:
    """The sampler that a domain allows at each number of evaluations, where there is one.

    Args:
        domain: The map's domain.
        nfes: Numbers of evaluations, each at least 1.
        named: Takes the place of the domain's own at its own number of evaluations; None for
            nobody.

    Raises:
        ValueError: If a number is below 1, or there is no sampler at any of them.
    """
    wanted = list(nfes)
    if not wanted or min(wanted) < 1:
        raise ValueError(f"numbers of evaluations must be at least 1, got {wanted}")
    own = {} if named is None else {named.evaluations(domain): named}
    asked = ((nfe, own.get(nfe) or sampler_for(domain, nfe)) for nfe in wanted)
    found = [(nfe, sampler) for nfe, sampler in asked if sampler is not None]
    if not found:
        ends = f", which ends at t = {domain.t_hi:g}," if domain.t_hi < 1.0 else ""
        raise ValueError(
            f"numbers of evaluations of a map with domain {domain.kind}{ends} must be of "
            f"{allowed_nfes(domain)}, got {', '.join(map(str, wanted))}"
        )
    return found


def allowed_nfes(domain: Domain) -> str:
    """The numbers of evaluations at which a domain has a sampler, for messages.

    Args:
        domain: The map's domain.

    Returns:
        The first ones, as ``1, 2, 4, 8, 16 up to 16``.
    """
    allowed = [str(nfe) for nfe in range(1, _SHOWN_NFES + 1) if sampler_for(domain, nfe)]
    return f"{', '.join(allowed) or 'none'} up to {_SHOWN_NFES}"


def clipped(x: Float[Tensor, " n *d"]) -> Float[Tensor, " n *d"]:
    """Images as they are when shown, in [-1, 1]; points as they are."""
    return x.clamp(-1.0, 1.0) if x.dim() == 4 else x


def unbounded(x: Float[Tensor, " n *d"]) -> Float[Tensor, " n *d"]:
    """The same: latents have no range."""
    return x


def finish_of(latents: LatentSpace | None) -> Finish:
    """What becomes of samples that are not decoded.

    Args:
        latents: Their space where they are latents, or None.
    """
    return clipped if latents is None else unbounded


def draw_samples(
    flow_map: FlowMap,
    sampler: AbstractSampler,
    *,
    n: int,
    shape: tuple[int, ...],
    seed: int,
    condition: Condition | None = None,
    finish: Finish = clipped,
) -> Float[Tensor, " n *d"]:
    """Samples 0, ..., n - 1 of a seed; any two maps are given the same noise, on every device.

    Args:
        flow_map: The map.
        sampler: How to sample it.
        n: How many samples.
        shape: Shape of one.
        seed: Seed of the noise.
        condition: What each sample is asked to be, its class or its caption, or None.
        finish: What becomes of them at the end; those of every device are brought to the CPU.

    Returns:
        The finished samples, on the CPU.

    Raises:
        SamplesNotFinite: If a sample is infinite or undefined.
    """
    parts, device = [], device_of(flow_map)
    for start in range(0, n, _BATCH):
        size = min(_BATCH, n - start)
        noise = draw_noise(size, shape, seed=seed, draws=sampler.draws, start=start).to(device)
        part = None if condition is None else condition[slice(start, start + size)].to(device)
        parts.append(sampler.sample(flow_map, noise, part).cpu())
    x = torch.cat(parts)
    bad = int((~x.flatten(1).isfinite().all(dim=1)).sum())
    if bad:
        raise SamplesNotFinite(f"{bad} of {n} samples by {sampler} are not finite numbers")
    return torch.cat([finish(rows).cpu() for rows in torch.split(x, _FINISHED)])


def device_of(flow_map: FlowMap) -> torch.device:
    """Where a map lies; one without weights is computed on the CPU."""
    weight = next(flow_map.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device
