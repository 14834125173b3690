"""What the registry knows about a version that is served, read once, when it is loaded."""

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from ..platform.registry.record import ModelRecord
from .schema import Ancestor, RegistryCard

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and the ingress needs none
    from ..platform.registry.entry import ModelEntry
    from ..platform.registry.store import Registry

_LOG: Final = logging.getLogger(__name__)
_ADDRESSES: Final = ("https://", "http://")


@final
@dataclass(frozen=True, kw_only=True)
class Known:
    """What the registry knows about a version; it never changes.

    Attributes:
        lineage: The versions that it was made from, each once and the nearest first.
        card: What the registry holds about it; None for a model that is in none.
    """

    lineage: tuple[Ancestor, ...] = ()
    card: RegistryCard | None = None


def known_of(registry: "Registry", version: str) -> Known:
    """What the registry knows about a version.

    Args:
        registry: The registry.
        version: A registered version.

    Returns:
        Its card and lineage. An ancestor that is gone, or cannot be read, which is logged, is told
        by its version alone.
    """
    entry = registry.entry(version)
    found: dict[str, Ancestor] = {}
    coming = deque(_parents(entry.record))
    while coming:
        parent = coming.popleft()
        if parent in found:
            continue
        try:
            ancestor = registry.entry(parent)
        except ValueError as error:
            _LOG.warning("the lineage of %s ends early: %s", version, error)
            found[parent] = Ancestor(version=parent)
        else:
            found[parent] = _told(ancestor)
            coming.extend(_parents(ancestor.record))
    return Known(lineage=tuple(found.values()), card=_card(entry))


def _parents(record: ModelRecord) -> list[str]:
    return [str(parent) for parent in record.model_parents.values()]


def _told(entry: "ModelEntry") -> Ancestor:
    return Ancestor(
        version=str(entry.reference),
        method=entry.record.method_name,
        weights_sha256=entry.files.weights_sha256,
        data_digest=entry.record.data_digest,
        parents=dict(entry.record.parents),
    )


def _card(entry: "ModelEntry") -> RegistryCard:
    record = entry.record
    source = record.origin.get("source", "")
    return RegistryCard(
        registered=entry.created.isoformat(timespec="seconds"),
        network=str(record.net["_target_"]).rpartition(".")[2],
        weights=record.ema,
        weights_sha256=entry.files.weights_sha256,
        record_sha256=entry.files.record_sha256,
        data_digest=record.data_digest,
        seed=record.seed,
        revision=record.revision,
        licence=record.origin.get("licence"),
        source=source if source.startswith(_ADDRESSES) else None,  # and no folder of a machine
    )
