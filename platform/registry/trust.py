"""Trust: which classes a record of the registry may name, asked before anything of it is built.

A record comes from whoever can write to the store, and a node of it may name any class that Python
can import. To build one runs its constructor, so that a check of the result comes too late.
"""

import os
from collections.abc import Collection, Mapping
from typing import Final

from ..build import class_at
from .errors import ModelNotTrusted

VARIABLE: Final = "ONESTEP_TRUST"
"""Names packages whose classes records may name beside our own, with commas between them."""


def check_trusted(node: object, *, what: str) -> None:
    """Refuse plain values that name a class of a package that is not trusted.

    Args:
        node: What a record holds; nodes may nest.
        what: Where it comes from, for the message.

    Raises:
        ModelNotTrusted: If a class is of another package, or a text would be filled in by Hydra,
            which may make nodes of texts.
    """
    given = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    _check(node, what, {"onestep", *filter(None, given)})


def _check(part: object, what: str, packages: Collection[str]) -> None:
    if isinstance(part, str) and "${" in part:
        raise ModelNotTrusted(f"{what} must hold plain values, got the interpolation {part!r}")
    if isinstance(part, Mapping):
        if "_target_" in part and not _is_in(str(part["_target_"]), packages):
            raise ModelNotTrusted(
                f"{what} names {part['_target_']}, and building it would run code outside of "
                f"{', '.join(sorted(packages))}; if you trust its package, add it to {VARIABLE}"
            )
        for inner in part.values():
            _check(inner, what, packages)
    elif isinstance(part, list | tuple):
        for inner in part:
            _check(inner, what, packages)


def _is_in(target: str, packages: Collection[str]) -> bool:
    """Whether a class is reached through a trusted package, and is of one and not only seen there.

    A package that is not trusted is not even imported.
    """
    if target.partition(".")[0] not in packages:
        return False
    return class_at(target).__module__.partition(".")[0] in packages
