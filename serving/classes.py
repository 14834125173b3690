"""Which class of a model a request means."""

from typing import Final

from ..platform.registry.record import ModelRecord
from .errors import RequestRefused, shown

_NAMES_SHOWN: Final = 10


def class_of(record: ModelRecord, asked: str | int, *, param: str) -> int | None:
    """The class that a number or a text names.

    Args:
        record: Record of the model.
        asked: Its number; or as text its name or number, empty for an unconditional model.
        param: The field that holds it.

    Returns:
        The class, or None for an unconditional model.

    Raises:
        RequestRefused: If it names none.
    """
    if record.classes == 0:
        if str(asked).strip():
            raise RequestRefused(
                f"{param} must be empty for a model without classes, got {shown(asked)}",
                param=param,
            )
        return None
    number = asked if isinstance(asked, int) else _named(record.label_names, asked.strip())
    if number is not None and 0 <= number < record.classes:
        return number
    own = [name for k, name in enumerate(record.label_names) if name != str(k)]
    known = ", ".join(own[:_NAMES_SHOWN])
    raise RequestRefused(
        f"{param} must be a class label, got {shown(asked) if asked != '' else 'none'}; "
        f"allowed: 0..{record.classes - 1}" + (f" or {known}" if known else ""),
        param=param,
    )


def _named(names: tuple[str, ...], text: str) -> int | None:
    """The number that a text means: of the very name, of the only one but for case, or its own.

    So every name can be asked for, whatever the others are.
    """
    if text in names:
        return names.index(text)
    alike = [k for k, name in enumerate(names) if name.casefold() == text.casefold()]
    if len(alike) == 1:
        return alike[0]
    # isdecimal alone would let other scripts' digits and very long numbers through.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
