"""Settings: frozen records from plain values, each value checked against the type of its field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

R = TypeVar("R")


def settings(record: type[R], name: str, values: object) -> R:
    """A record of settings.

    Args:
        record: Its class, a dataclass.
        name: What the settings are called in messages.
        values: Plain values by field.

    Returns:
        The record. A whole number written with an exponent is an integer, and a number is a text
        where a text is asked for, as in a name.

    Raises:
        ValueError: If there are no values by field, a field is unknown or missing, or a value is
            of another type or out of range.
    """
    kinds = get_type_hints(record)
    parts = fields(record)  # type: ignore[arg-type]
    given = by_name(name, values, [part.name for part in parts])
    missing = [
        part.name
        for part in parts
        if part.name not in given and part.default is part.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    typed = {key: typed_value(f"{name}.{key}", value, kinds[key]) for key, value in given.items()}
    return record(**typed)


def by_name(name: str, values: object, allowed: Sequence[str]) -> Mapping[str, Any]:
    """Plain values by name, of which none is unknown.

    Args:
        name: What they are called in messages.
        values: The values.
        allowed: All names there are.

    Returns:
        The values.

    Raises:
        ValueError: If they are not by name, or a name is unknown.
    """
    names = ", ".join(allowed)
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be settings by name ({names}), got {values!r}")
    unknown = sorted(str(key) for key in values if key not in allowed)
    if unknown:
        raise ValueError(f"{name} has no setting {', '.join(unknown)}, allowed: {names}")
    return values


def typed_value(name: str, value: object, kind: Any) -> Any:
    """A plain value as the type of its field.

    Args:
        name: What it is called in messages.
        value: The value.
        kind: The annotation of the field.

    Returns:
        The value in that type.

    Raises:
        ValueError: If it is of another type.
    """
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list, got {value!r}")
        return tuple(typed_value(name, part, get_args(kind)[0]) for part in value)
    options = get_args(kind)
    if NoneType in options:
        return None if value is None else typed_value(name, value, options[0])
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind is int and number is not None and (isinstance(number, int) or number.is_integer()):
        return int(number)
    if kind is float and number is not None:
        return finite(name, number)
    if kind is str and (isinstance(value, str) or number is not None):
        return str(value)
    if kind in (int, float, bool, str) and not (kind is bool and isinstance(value, bool)):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ValueError(f"{name} must be {wanted[kind]}, got {value!r}")
    return value


def finite(name: str, number: float) -> float:
    """A number that can be computed with.

    Args:
        name: What it is called in messages.
        number: The number.

    Returns:
        The number.

    Raises:
        ValueError: If it is infinite, undefined or too large.
    """
    try:
        if math.isfinite(number):
            return float(number)
    except OverflowError:
        pass
    raise ValueError(f"{name} must be a finite number, got {number!r}")
