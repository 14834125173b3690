"""Storage that all nodes of a Ray cluster share: each writes into a folder and reads the others."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CURE: Final = "set ONESTEP_HOME to storage that all nodes mount at the same path"
_WITHIN_S: Final = 120.0
"""A node whose first process has to import the package takes a while to answer."""
_PATIENCE_S: Final = 3.0
"""Network file systems show what is new elsewhere after a while."""
_POLL_S: Final = 0.1
_HERE: Final = "here"
_HEAD: Final = "node:__internal_head__"
"""A resource that the head alone has."""

_Answer = TypeVar("_Answer")


def check_shared(
    folder: Path, *, needed: Mapping[str, float] | None = None, within_s: float = _WITHIN_S
) -> None:
    """Refuse a folder that is not the same, to write and to read, on all nodes of the cluster.

    Each node writes a file into a folder of this process's making, and then reads those of all
    others; nothing of it stays. Nodes that come later are not there to be asked.

    Args:
        folder: Where all nodes are to work; it exists here, and Ray is connected.
        needed: Resources that a node must have in all to be asked, or None for every node. The
            head is always asked: there may be no other node yet.
        within_s: How long to wait for the answers of all nodes, twice.

    Raises:
        ValueError: If a node does not see the folder, cannot write into it, does not see the file
            of another node, or does not answer.
    """
    nodes = _nodes(needed or {})
    with _meeting(folder) as place:
        written = _ask(_write, nodes, place, tuple(nodes), within_s)
        _refuse_writers(written, nodes, folder)
        names = (_HERE, *nodes)
        missed = _ask(_missing, nodes, place, names, within_s)
        missed[_HERE] = _missing(place, names, _HERE)
    for reader, unseen in missed.items():
        if unseen:
            whom = ", ".join(_named(name, nodes) for name in unseen)
            raise ValueError(f"{_named(reader, nodes)} does not see what {whom} wrote: {CURE}")


def _nodes(needed: Mapping[str, float]) -> dict[str, str]:
    """Addresses of the nodes that are alive, of those that have the resources and of the head."""
    all_nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in all_nodes
        if node["Alive"]
        and (
            _HEAD in node["Resources"]
            or all(node["Resources"].get(kind, 0.0) >= some for kind, some in needed.items())
        )
    }


@contextmanager
def _meeting(folder: Path) -> Iterator[Path]:
    """A folder within the folder, with a file of this process, for as long as the block lasts."""
    place = folder / f".shared-{secrets.token_hex(8)}"
    try:
        place.mkdir()
        (place / _HERE).write_text(_HERE)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise ValueError(f"this process cannot write into {folder}: {error.strerror}") from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _ask(
    task: Callable[[Path, Sequence[str], str], _Answer],
    nodes: Mapping[str, str],
    place: Path,
    names: Sequence[str],
    within_s: float,
) -> dict[str, _Answer]:
    """The answers of all nodes."""
    remote = ray.remote(num_cpus=0, max_retries=0)(task)
    asked = {
        node: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(place, names, node)
        for node in nodes
    }
    if not asked:
        return {}
    _, silent = ray.wait(list(asked.values()), num_returns=len(asked), timeout=within_s)
    answers: dict[str, _Answer] = {}
    for node, answer in asked.items():
        if answer in silent:
            ray.cancel(answer, force=True)
            raise ValueError(f"node {nodes[node]} does not answer within {within_s:g} seconds")
        try:
            answers[node] = ray.get(answer)
        except RayError as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"node {nodes[node]} runs no task: {why}") from error
    return answers


def _write(place: Path, names: Sequence[str], node: str) -> OSError | None:
    """What keeps this node from writing its file, or None; the folder itself is not made here."""
    del names
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            (place / node).write_text(node)
        except FileNotFoundError as error:
            if time.monotonic() > until:
                return error
            time.sleep(_POLL_S)
        except OSError as error:
            return error
        else:
            return None


def _missing(place: Path, names: Sequence[str], node: str) -> list[str]:
    """Names of those whose file this node does not see."""
    del node
    until = time.monotonic() + _PATIENCE_S
    while True:
        unseen = [name for name in names if not _has(place / name, name)]
        if not unseen or time.monotonic() > until:
            return unseen
        time.sleep(_POLL_S)


def _has(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False


def _refuse_writers(
    written: Mapping[str, OSError | None], nodes: Mapping[str, str], folder: Path
) -> None:
    for node, error in written.items():
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"node {nodes[node]} does not see the folder {folder}: {CURE}")
        if error is not None:
            raise ValueError(f"node {nodes[node]} cannot write into {folder}: {error.strerror}")


def _named(name: str, nodes: Mapping[str, str]) -> str:
    return "this process" if name == _HERE else f"node {nodes[name]}"
