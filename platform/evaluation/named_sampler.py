"""Samplers that are named: by overrides of ``onestep sample``, or by the record of a model."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...methods.core.flow_map import Domain
from ...methods.core.sampler import AbstractSampler
from ..build import build
from ..configuration import compose
from ..registry.record import ModelRecord
from ..registry.trust import check_trusted
from .sampling import samplers_at

SAMPLER: Final = "sampler"
"""Group of the samplers that can be named."""


def apart(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that choose a sampler or change one, and all others.

    Args:
        overrides: Those of a command.
    """
    named = [each for each in overrides if is_of_sampler(each)]
    return named, [each for each in overrides if each not in named]


def is_of_sampler(override: str) -> bool:
    """Whether an override chooses a sampler or changes one."""
    place = override.partition("=")[0].rpartition("@")[2]  # of clock@sampler.grid.clock too
    return place.split(".")[0] == SAMPLER


def sampler_node(overrides: Sequence[str]) -> Mapping[str, Any] | None:
    """The node of a sampler that overrides name; None where they name none.

    Args:
        overrides: Such as ``sampler=renoise`` and ``sampler.grid.inner=[0.3]``.
    """
    node: Mapping[str, Any] | None = compose("sample", overrides)[SAMPLER] if overrides else None
    return node


def named_sampler(overrides: Sequence[str]) -> AbstractSampler | None:
    """The sampler that overrides name; None where they name none.

    Args:
        overrides: Such as ``sampler=renoise`` and ``sampler.grid.inner=[0.3]``.
    """
    node = sampler_node(overrides)
    return None if node is None else build(node, AbstractSampler)


def sampler_for_record(overrides: Sequence[str], record: ModelRecord) -> AbstractSampler:
    """The sampler that overrides name, which a model can be sampled by.

    Args:
        overrides: At least one.
        record: Record of the model.

    Raises:
        ValueError: If they name none, or the model was not trained where it goes.
    """
    chosen = named_sampler(overrides)
    if chosen is None:
        raise ValueError(f"{overrides[0]} names no sampler: leave it out")
    chosen.check(Domain.from_dict(dict(record.domain)))
    return chosen


def own_sampler(record: ModelRecord) -> AbstractSampler | None:
    """The sampler that a model was registered with; None for that of its domain.

    It takes the place of the domain's own at its number of evaluations.

    Args:
        record: Record of the model.
    """
    if record.sampler is None:
        return None
    check_trusted(record.sampler, what=f"the sampler of a model {record.name!r}")
    return build(record.sampler, AbstractSampler)


def check_nfes(record: ModelRecord, nfes: Sequence[int]) -> None:
    """Refuse numbers of evaluations of which a model has a sampler at none, before it is loaded.

    Args:
        record: Record of the model.
        nfes: The numbers, each at least 1.

    Raises:
        ValueError: If there is no sampler at any of them; the message says at which there is one.
    """
    samplers_at(Domain.from_dict(dict(record.domain)), nfes, named=own_sampler(record))
