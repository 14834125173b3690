"""Settings: frozen records from plain values, each value checked against the type of its field."""

from collections.abc import Mapping
from dataclasses import fields
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
    known = {f.name for f in fields(record)}  # type: ignore[arg-type]
    allowed = ", ".join(kind for kind in kinds if kind in known)
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be settings by name ({allowed}), got {values!r}")
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{name} has no setting {', '.join(unknown)}, allowed: {allowed}")
    typed = {key: typed_value(f"{name}.{key}", value, kinds[key]) for key, value in values.items()}
    try:
        return record(**typed)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


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
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and is_number and float(value).is_integer():  # type: ignore[arg-type]
        return int(value)  # type: ignore[call-overload]
    if kind is float and is_number:
        return float(value)  # type: ignore[arg-type]
    if kind is str and (isinstance(value, str) or is_number):
        return str(value)
    if kind in (int, float, bool, str) and not (kind is bool and isinstance(value, bool)):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ValueError(f"{name} must be {wanted[kind]}, got {value!r}")
    return value
