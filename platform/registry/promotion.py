"""The history of an alias: entries that name their predecessors, so that a rewritten one shows.

Each entry is stored under a key that ends with the start of the SHA-256 of its own text, and its
text names the entries that it was written after. Two promoters at the same moment write two entries
after the same one; both stay, and the order below is the same for every reader. An entry that was
changed, or removed from under a later one, is found out. Someone who may write to the database and
rebuilds every later entry, or removes the last and moves the alias back, is not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Self, final

from ..atomic import sha256
from .errors import ModelAltered
from .reference import ModelVersion, check_alias

_FOLDER: Final = "alias_history"
_DIGEST_CHARACTERS: Final = 16
_LONGEST_TEXT: Final = 1000
_LONGEST_ENTRY: Final = 5000  # characters that the database column holds


@final
@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One move of an alias.

    Attributes:
        alias: The alias that moved.
        number: Place in the history, from 1; equal for promotions at the same moment.
        at: When, in UTC, ISO 8601 with microseconds.
        who: Who moved it.
        why: Reason in words.
        source: Version that had the alias before, or empty.
        to: Version that has it since; empty where it was taken away.
        gate: The condition that the version met, or empty.
        previous: Digests of the entries that this one was written after.
        facts: What a program needs to know beside the reason, as JSON; empty where it is nothing.

    Raises:
        ValueError: If the reason or the promoter is empty, or the entry too long.
    """

    alias: str
    number: int
    at: str
    who: str
    why: str
    source: str
    to: str
    gate: str = ""
    previous: tuple[str, ...] = ()
    facts: str = ""

    def __post_init__(self) -> None:
        check_alias(self.alias)
        for field, text in (("why", self.why), ("who", self.who)):
            if not text.strip() or len(text) > _LONGEST_TEXT:
                raise ValueError(
                    f"promotion {field} must have 1 to {_LONGEST_TEXT} characters, got {len(text)}"
                )
        if (length := len(self.to_json())) > _LONGEST_ENTRY:
            raise ValueError(
                f"a promotion must have at most {_LONGEST_ENTRY} characters as JSON, got {length}"
            )

    @property
    def version(self) -> ModelVersion | None:
        """The version that has the alias since; None where it was taken away."""
        return ModelVersion.parse(self.to) if self.to else None

    @property
    def digest(self) -> str:
        """Start of the SHA-256 of the entry's text."""
        return sha256(self.to_json().encode())[:_DIGEST_CHARACTERS]

    @property
    def key(self) -> str:
        """Key of the tag that holds the entry."""
        return f"{_FOLDER}/{self.alias}/{self.number:06d}-{self.digest}"

    def to_json(self) -> str:
        """The entry's text, the same for the same entry."""
        fields = asdict(self)
        if not self.facts:  # the digest of an entry without facts is that of its other fields
            del fields["facts"]
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**values | {"previous": tuple(values["previous"])})


def read_history(tags: Mapping[str, str], alias: str, *, model: str) -> tuple[Promotion, ...]:
    """The promotions of an alias, oldest first, from the tags of its registered model.

    Args:
        tags: All tags of the registered model.
        alias: The alias.
        model: Name of the model, for messages.

    Returns:
        Promotions in their order, which no reader can see differently.

    Raises:
        ModelAltered: If an entry was changed or removed.
    """
    folder = f"{_FOLDER}/{check_alias(alias)}/"
    promotions = []
    for key in sorted(key for key in tags if key.startswith(folder)):
        try:
            promotion = Promotion.from_json(tags[key])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelAltered(f"history of {model}@{alias} cannot be read at {key!r}") from error
        if promotion.key != key:
            raise ModelAltered(f"history of {model}@{alias} was altered at {key!r}")
        promotions.append(promotion)
    known = {promotion.digest for promotion in promotions}
    for promotion in promotions:
        for digest in promotion.previous:
            if digest not in known:
                raise ModelAltered(
                    f"history of {model}@{alias} lost the entry {digest}, "
                    f"which {promotion.key!r} was written after"
                )
    return tuple(sorted(promotions, key=lambda one: (one.number, one.at, one.digest)))


def following(history: Sequence[Promotion]) -> tuple[int, tuple[str, ...]]:
    """Number and predecessors of the next entry.

    Args:
        history: The entries so far.

    Returns:
        The number, and the digests of the entries that none was written after yet.
    """
    named = {digest for promotion in history for digest in promotion.previous}
    open_ends = tuple(one.digest for one in history if one.digest not in named)
    return max((one.number for one in history), default=0) + 1, open_ends
