"""Changes: numbers and schedules of an experiment that become others in the middle of its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from ..methods.core.schedule import Schedule
from .build import class_at

Node = Mapping[str, Any]
RATE: Final = "optimizer.lr"
GROUPS: Final = ("method", "optimizer", "learning_rate")
"""Nodes in which there is anything to change."""


@final
@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes different after some samples of a run.

    Attributes:
        samples: Samples after which it holds, rounded down to whole batches.
        values: Numbers, or nodes of schedules, by the dotted path of what they replace: within
            ``method`` or ``learning_rate``, or ``optimizer.lr``.

    Raises:
        ValueError: If nothing is changed, or something that a run cannot change on its way.
    """

    samples: int
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not self.values:
            raise ValueError(f"changes need values by dotted path, got {self.values!r}")
        for path, value in self.values.items():
            check_path(str(path))
            if not is_movable(value):
                raise ValueError(
                    f"{path} can become a number or a schedule in the middle of a run, "
                    f"got {value!r}"
                )

    def applied(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """Nodes with what the change makes of them.

        Args:
            nodes: The node of the method, the optimizer and the learning rate, by name.

        Returns:
            The changed nodes; those that were given stay as they are.

        Raises:
            ValueError: If there is no number and no schedule at a path.
        """
        made = dict(nodes)
        for path, value in self.values.items():
            names = str(path).split(".")
            made[names[0]] = _replaced(made[names[0]], names[1:], value, path=str(path))
        return made


def is_movable(value: object) -> bool:
    """Whether a value is of the kind that may become another one in the middle of a run."""
    if isinstance(value, Mapping):
        return "_target_" in value and issubclass(class_at(str(value["_target_"])), Schedule)
    return isinstance(value, int | float) and not isinstance(value, bool)


def difference(before: Mapping[str, Node], after: Mapping[str, Node]) -> dict[str, Any]:
    """What a change from some nodes to others has to set.

    Args:
        before: Nodes by name.
        after: The nodes that are to be made of them.

    Returns:
        Values by dotted path; empty where nothing differs.

    Raises:
        ValueError: If something differs that no change can set; the message names its path.
    """
    found: dict[str, Any] = {}
    for name in before:
        found |= _apart(name, before[name], after[name])
    for path in found:
        check_path(path)
    return found


def check_path(path: str) -> None:
    """Refuse a path at which nothing may become another in the middle of a run.

    Args:
        path: Dotted path of an experiment.

    Raises:
        ValueError: If nothing may.
    """
    group, _, rest = path.partition(".")
    if path == RATE or group == "learning_rate" or (group == "method" and rest):
        return
    raise ValueError(
        f"{path} cannot become another in the middle of a run, only numbers and schedules of the "
        f"method, learning_rate and {RATE} can"
    )


def _replaced(node: Any, names: list[str], value: Any, *, path: str) -> Any:
    if not names:
        if not is_movable(node):
            raise ValueError(f"{path} has to be a number or a schedule to be changed, it is {node}")
        return value
    if not isinstance(node, Mapping) or names[0] not in node:
        raise ValueError(f"the experiment has no {path} to be changed")
    return {**node, names[0]: _replaced(node[names[0]], names[1:], value, path=path)}


def _apart(path: str, before: Any, after: Any) -> dict[str, Any]:
    if before == after:
        return {}
    is_node = isinstance(before, Mapping) and isinstance(after, Mapping)
    if is_node and before.keys() == after.keys() and _kind(before) == _kind(after):
        found: dict[str, Any] = {}
        for name in before:
            found |= _apart(f"{path}.{name}", before[name], after[name])
        return found
    if is_movable(before) and is_movable(after):
        return {path: after}
    raise ValueError(
        f"{path} cannot become {_text(after)} from {_text(before)} in the middle of a run, which "
        "sets numbers and schedules alone"
    )


def _kind(node: Node) -> object:
    return node.get("_target_")


def _text(value: object) -> str:
    return str(_kind(value)) if isinstance(value, Mapping) else repr(value)
