"""Things from their configuration: a ``_target_`` node and the class that it has to give."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from .settings import finite

T = TypeVar("T")


def build(node: Mapping[str, Any], expected: type[T], **runtime: Any) -> T:
    """The object that a configuration node describes.

    Args:
        node: A mapping with a ``_target_`` and the fields of that class; nodes may nest.
        expected: Class that the result has to be an instance of.
        **runtime: Arguments that only the caller knows, such as the shape of the data.

    Returns:
        The object.

    Raises:
        ValueError: If a target cannot be imported, a field is unknown or refused by its class, or
            the result is of another class.
    """
    _check_fields(node, tuple(runtime))
    try:
        # Runtime arguments go around Hydra, which would turn records into dictionaries.
        make = instantiate({**node, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise _plain(error) from error
    if node.get("_partial_"):
        return _checked(make, node, expected)
    try:
        thing = make(**runtime)
    except TypeError as error:
        raise ValueError(f"{node['_target_']}: {error}") from error
    return _checked(thing, node, expected)


def _checked(thing: object, node: Mapping[str, Any], expected: type[T]) -> T:
    if not isinstance(thing, expected):
        raise ValueError(f"{node['_target_']} is no {expected.__name__}")
    return thing


def class_at(dotted: str) -> type:
    """The class at a dotted path; its module is imported.

    Args:
        dotted: Path of a module and name of a class in it.

    Returns:
        The class.

    Raises:
        ValueError: If it cannot be imported, or is no class.
    """
    module, _, name = dotted.rpartition(".")
    try:
        target = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import {dotted}: {_first_line(error)}") from error
    if not isinstance(target, type):
        raise ValueError(f"{dotted} is no class")
    return target


def _check_fields(node: Mapping[str, Any], runtime: tuple[str, ...]) -> None:
    if "_target_" not in node:
        raise ValueError(f"a node needs a _target_ that names its class, got {dict(node)}")
    target = class_at(str(node["_target_"]))
    allowed = inspect.signature(target).parameters
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    for key in (*given, *runtime):
        if key not in allowed and not _takes_any(allowed):
            raise ValueError(
                f"{target.__name__} has no field {key!r}, allowed: {', '.join(sorted(allowed))}"
            )
    for key, value in given.items():
        if key in allowed:
            _check_kind(f"{target.__name__}.{key}", value, allowed[key].annotation)
            _check_class(f"{target.__name__}.{key}", value, allowed[key].annotation)
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Mapping) and "_target_" in inner:
                _check_fields(inner, ())


def _check_kind(name: str, value: object, annotation: object) -> None:
    """Refuse a text for a number, a word for a thing, and the like."""
    kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    for kind, allowed in kinds.items():
        is_bool = isinstance(value, bool)
        if annotation is kind and (not isinstance(value, allowed) or is_bool != (kind is bool)):
            raise ValueError(f"{name} must be {names[kind]}, got {value!r}")
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, float):
            finite(name, number)
        if number is not value and annotation in (tuple[int, ...], Sequence[int]):
            _check_kind(name, number, int)
    options = _options(annotation)
    things = [option for option in options if option is not NoneType]
    is_given = isinstance(value, Mapping) or (value is None and NoneType in options)
    if not is_given and all(_is_thing(option) for option in things):
        null = ", or null" if NoneType in options else ""
        raise ValueError(f"{name} must be a node that names its class{null}, got {value!r}")


def _check_class(name: str, value: object, annotation: object) -> None:
    """Refuse a node of a thing that is none of those that a field holds."""
    if not isinstance(value, Mapping) or "_target_" not in value or value.get("_partial_"):
        return
    things = [it for it in _options(annotation) if isinstance(it, type) and it is not NoneType]
    target = class_at(str(value["_target_"]))
    if things and all(map(_is_thing, things)) and not issubclass(target, tuple(things)):
        wanted = " or ".join(it.__name__ for it in things)
        raise ValueError(f"{name} must be of {wanted}, got {target.__name__}")


def _options(annotation: object) -> tuple[object, ...]:
    """The kinds of which a value may be."""
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _is_thing(kind: object) -> bool:
    """Whether values of a class are things, described by nodes, and not plain values."""
    return isinstance(kind, type) and (is_dataclass(kind) or inspect.isabstract(kind))


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _plain(error: InstantiationException) -> ValueError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return ValueError(_first_line(cause))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
