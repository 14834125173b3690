"""Notes: what the folder of a sweep says of it, so that the same command goes on with it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, final

from ..platform.atomic import write_json
from ..platform.home import Home
from ..platform.password import without_passwords
from .settings import SweepSettings

_FILE: Final = "sweep.json"
COUNTS: Final = ("trials", "concurrency", "retries", "budget", "address", "wandb")
"""Settings with which a sweep may go on changed: they decide no trial."""
_SHOWN: Final = 3


@final
@dataclass(frozen=True, kw_only=True)
class SweepNote:
    """What the folder of a sweep says of it.

    Attributes:
        asked: The sweep as it was asked for.
        settings: The same with the versions of its parents.
        revision: Revision of the code that it was begun with.
        code: Digest of that code.
        files: Digests of its files; empty where nobody wrote them down.
    """

    asked: SweepSettings
    settings: SweepSettings
    revision: str
    code: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> Self:
        """The note of a sweep.

        Args:
            name: Name of the sweep, as it was printed.

        Returns:
            The note.

        Raises:
            ValueError: If there is no such sweep.
        """
        folder = folder_of(name if "/" not in name else "")
        try:
            values = json.loads((folder / _FILE).read_text())
        except FileNotFoundError:
            known = ", ".join(sorted(path.name for path in _folders())) or "none"
            raise ValueError(
                f"there is no sweep {name!r} in {folder.parent}, only {known}"
            ) from None
        return cls(
            asked=SweepSettings.from_dict(values["asked"]),
            settings=SweepSettings.from_dict(values["settings"]),
            revision=values["revision"],
            code=values.get("code", ""),
            files=values.get("files", {}),
        )

    def keep(self, name: str) -> None:
        """Write the note into the folder of its sweep, for its owner alone.

        The passwords of stores, which a resumed sweep needs again, are in it.

        Args:
            name: Name of the sweep.
        """
        values = {
            "asked": self.asked.to_dict(),
            "settings": self.settings.to_dict(),
            "revision": self.revision,
            "code": self.code,
            "files": dict(self.files),
        }
        write_json(folder_of(name) / _FILE, values, mode=0o600)


def folder_of(name: str) -> Path:
    """The folder of a sweep."""
    return Home.here().root / "sweeps" / name


def names_of_sweeps() -> list[str]:
    """The sweeps of this home, in the order in which they were begun."""
    # Folders are named by the settings' name and the time.
    return sorted((path.name for path in _folders()), key=lambda name: name.rsplit("-", 3)[1:])


def name_folder(name: str) -> Path:
    """The folder that the last sweep of a name is found and begun in turn by; no sweep lies there.

    It stays: to remove it would take it from who has just opened it.

    Args:
        name: What the settings call the sweep.
    """
    return Home.here().root / ".locks" / name


def latest_of(settings: SweepSettings) -> str | None:
    """The sweep that was begun last under the name of these settings, or None.

    Args:
        settings: What is asked for.
    """
    # Folders are named by the settings' name and the time.
    names = [path.name for path in _folders() if path.name.rsplit("-", 3)[0] == settings.name]
    return max(names, default=None)


def changes(before: SweepSettings, now: SweepSettings) -> str:
    """What differs between two sweeps, but for what decides no trial; nothing if they are the same.

    Args:
        before: The one that was begun.
        now: The one that is asked for.
    """
    old, new = (_flat(without_passwords(one.to_dict())) for one in (before, now))
    found = [
        f"{key}: {old.get(key, 'nothing')!r} then, {new.get(key, 'nothing')!r} now"
        for key in sorted({*old, *new})
        if key.split(".")[0] not in COUNTS and old.get(key) != new.get(key)
    ]
    return _few(found, "; ")


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The files in which two codes differ, in words; nothing if they are the same.

    Args:
        before: Digests of the files of one, by path; empty where nobody knows them.
        now: Those of the other.
    """
    if not before:
        return ""
    found = [
        f"{path} is {'gone' if path not in now else 'new' if path not in before else 'another'}"
        for path in sorted({*before, *now})
        if before.get(path) != now.get(path)
    ]
    return _few(found, ", ")


def _few(found: Sequence[str], between: str) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return between.join(found[:_SHOWN]) + more


def _folders() -> Iterator[Path]:
    return (path.parent for path in (Home.here().root / "sweeps").glob(f"*/{_FILE}"))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping):
        pairs = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list) and prefix == "base":  # overrides, of which each has its key
        pairs = [(str(one).partition("=")[0], one) for one in node]
    else:
        return {prefix: node}
    return {
        key: value
        for name, part in pairs
        for key, value in _flat(part, f"{prefix}.{name}" if prefix else name).items()
    }
