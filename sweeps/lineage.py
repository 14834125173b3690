"""Lineages: where the trials of a population began, and by which ancestors a trial was made."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

LINEAGE: Final = "lineage"
"""Where a trial of a population belongs, kept with it in Optuna's database."""


@final
@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The checkpoint that a trial begins from.

    Attributes:
        checkpoint: Its folder, from that of the sweep.
        sha256: Digest of its state.
    """

    checkpoint: str
    sha256: str


@final
@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The place of a trial in its population.

    Attributes:
        member: Which of the members it is, from 0.
        generation: Which part of the run it trains, from 0.
        own: The overrides that are its own: the values of its first ancestor, and the changes on
            the way to it. They train the whole line again, from its first sample.
        changes: These changes, as an experiment has them.
        parent: The trial whose state it goes on from; None in the first generation.
        beginning: The checkpoint of that trial; None in the first generation.
        was_replaced: Whether that trial is another member's.
    """

    member: int
    generation: int
    own: tuple[str, ...]
    changes: tuple[Mapping[str, Any], ...] = ()
    parent: int | None = None
    beginning: Beginning | None = None
    was_replaced: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The lineage that ``to_dict`` gave, whatever JSON made of it."""
        beginning = values["beginning"]
        return cls(
            **{
                **values,
                "own": tuple(values["own"]),
                "changes": tuple(values["changes"]),
                "beginning": None if beginning is None else Beginning(**beginning),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a database."""
        return asdict(self)

    @property
    def tags(self) -> dict[str, str]:
        """What a run of MLflow says of it, by name."""
        values = self.to_dict()
        texts = ("member", "generation", "parent", "was_replaced")
        tags = {f"onestep.population.{name}": str(values[name]) for name in texts}
        return {
            **tags,
            "onestep.population.beginning": json.dumps(values["beginning"]),
            "onestep.population.changes": json.dumps(values["changes"]),
        }


def ancestors(number: int, lineages: Mapping[int, Lineage]) -> tuple[int, ...]:
    """The trials that made one, the first ancestor first, itself last.

    Args:
        number: The trial.
        lineages: Those of all trials.
    """
    line: list[int] = []
    now: int | None = number
    while now is not None:
        line.append(now)
        now = lineages[now].parent
    return tuple(reversed(line))


def needed(lineages: Mapping[int, Lineage], *, generations: int) -> frozenset[int]:
    """The trials whose weights a population may still go on from.

    Those of the newest generation that has ended, until the next one has; its own are then enough.

    Args:
        lineages: Those of the trials that have ended.
        generations: How many there are; nobody goes on from the last one.
    """
    ended = Counter(one.generation for one in lineages.values())
    whole = [generation for generation, count in ended.items() if count == ended[0]]
    newest = max(whole, default=0)
    if newest == generations - 1:
        return frozenset()
    return frozenset(number for number, one in lineages.items() if one.generation >= newest)
