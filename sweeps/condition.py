"""Conditions: at which values of other choices a point of a space has a key."""

from collections.abc import Mapping

Scalar = str | float | int | bool | None
When = Mapping[str, Scalar | tuple[Scalar, ...]]


def read_when(node: object) -> dict[str, Scalar | tuple[Scalar, ...]]:
    """The conditions that plain values describe.

    Args:
        node: A value or a list of values by key.

    Returns:
        The same with tuples for lists.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(node, Mapping):
        raise ValueError(f"when must be values by the key of a choice, got {node!r}")
    when = {
        str(key): tuple(values) if isinstance(values, list | tuple) else values
        for key, values in node.items()
    }
    for key, values in allowed_by(when).items():
        if not values or not all(isinstance(value, Scalar) for value in values):
            raise ValueError(
                f"when needs a plain value or a list of them for {key}, got {node[key]!r}"
            )
    return when


def plain_when(when: When) -> dict[str, object]:
    """Conditions as plain values, as they were written."""
    return {
        key: list(values) if isinstance(values, tuple) else values for key, values in when.items()
    }


def allowed_by(when: When) -> dict[str, tuple[Scalar, ...]]:
    """All values that each of the other choices may have."""
    return {key: values if isinstance(values, tuple) else (values,) for key, values in when.items()}


def is_met(when: When, values: Mapping[str, Scalar]) -> bool:
    """Whether a point satisfies conditions.

    Args:
        when: The conditions.
        values: Values of the point, of which those of choices count.
    """
    return all(key in values and values[key] in some for key, some in allowed_by(when).items())
