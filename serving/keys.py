"""API keys: a file with the digest of each, read again when it changes."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import yaml

from ..platform.atomic import write_bytes
from ..platform.lock import in_turn
from ..platform.settings import settings

ENVIRONMENT: Final = "ONESTEP_KEYS"
"""The variable that names the file where ``serve.keys`` does not."""
MAX_PER_MINUTE: Final = 100_000
_BITS: Final = 256
_LOOK_EVERY_S: Final = 1.0
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LOG: Final = logging.getLogger(__name__)
Stamp = tuple[int, int, int] | None
"""Time, size and number of a file; None where there is none."""


@final
@dataclass(frozen=True, kw_only=True)
class Key:
    """A key, of which only the digest is kept.

    A plain digest is enough: a key is 256 random bits, so nobody finds it by trying words, which
    is what slow and salted digests are for. It must not be one that a person made up.

    Attributes:
        name: Whose it is, for the log.
        sha256: SHA-256 of the key, in hexadecimal.
        images_per_minute: Most images in any minute; None for no bound.
        requests_per_minute: Most requests in any minute; None for no bound.

    Raises:
        ValueError: If a value is not of that kind.
    """

    name: str
    sha256: str
    images_per_minute: int | None = None
    requests_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("the name of a key must be 1..64 of A-Z a-z 0-9 . _ -")
        if not _DIGEST.fullmatch(self.sha256):  # which may be the key itself: it is not shown
            raise ValueError(f"sha256 of key {self.name} must be 64 hexadecimal digits")
        for what, bound in (
            ("images_per_minute", self.images_per_minute),
            ("requests_per_minute", self.requests_per_minute),
        ):
            if bound is not None and not 1 <= bound <= MAX_PER_MINUTE:
                raise ValueError(
                    f"{what} of key {self.name} must be in 1..{MAX_PER_MINUTE} or null, got {bound}"
                )


def key_file(given: str | None, environment: Mapping[str, str]) -> str | None:
    """The full path of the file of keys.

    Args:
        given: As the settings name it, or None.
        environment: Read for ``ONESTEP_KEYS`` where they do not.

    Returns:
        The path; None where no keys are asked for.
    """
    return full_path(given or environment.get(ENVIRONMENT))


def full_path(given: str | None) -> str | None:
    """A path as it is from anywhere on this machine; None for none."""
    return str(Path(given).expanduser().absolute()) if given else None


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Args:
        path: A YAML file with a list ``keys``.

    Returns:
        The keys.

    Raises:
        ValueError: If it is no such file; what stands in it is not told.
    """
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:  # whose message quotes the file
        raise ValueError(f"{path} must be YAML, got something else") from None
    except OSError as error:
        raise ValueError(f"the file of keys {path} cannot be read: {error.strerror}") from error
    listed = node.get("keys") if isinstance(node, Mapping) and set(node) == {"keys"} else None
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
        raise ValueError(f"{path} must hold a list named keys of settings by name, and no more")
    keys = tuple(settings(Key, "key", one) for one in listed)
    for what in ("name", "sha256"):
        values = [asdict(key)[what] for key in keys]
        if len(set(values)) < len(values):
            raise ValueError(f"{path} must give each key a {what} of its own")
    return keys


def add_key(
    path: Path,
    name: str,
    *,
    images_per_minute: int | None = None,
    requests_per_minute: int | None = None,
) -> str:
    """Makes a key and keeps its digest.

    Args:
        path: The file, which is made if it is missing.
        name: Whose key it is.
        images_per_minute: Most images in any minute, or None.
        requests_per_minute: Most requests in any minute, or None.

    Returns:
        The key, which is nowhere else.

    Raises:
        ValueError: If the name is taken, or a value is refused.
    """
    token = f"onestep-{secrets.token_urlsafe(_BITS // 8)}"
    key = Key(
        name=name,
        sha256=_digest(token.encode()),
        images_per_minute=images_per_minute,
        requests_per_minute=requests_per_minute,
    )

    def added(keys: Sequence[Key]) -> list[Key]:
        if any(one.name == name for one in keys):
            raise ValueError(f"the name of a new key must be new, got {name}")
        return [*keys, key]

    _change(path, added)
    return token


def remove_key(path: Path, name: str) -> None:
    """Revokes a key.

    Args:
        path: The file.
        name: Whose key it is.

    Raises:
        ValueError: If there is no such key.
    """

    def removed(keys: Sequence[Key]) -> list[Key]:
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise ValueError(f"there must be a key {name} to remove; there are: {names}")
        return kept

    if not path.exists():
        raise ValueError(f"the file of keys {path} must exist to remove a key from it")
    _change(path, removed)


def _change(path: Path, change: Callable[[Sequence[Key]], list[Key]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(path.parent / f".{path.name}.lock"):
        keys = change(read_keys(path) if path.exists() else ())
        rows = [
            {name: value for name, value in asdict(key).items() if value is not None}
            for key in keys
        ]
        text = yaml.safe_dump({"keys": rows}, sort_keys=False)
        write_bytes(path, text.encode(), mode=0o600)


@final
class KeyRing:
    """The keys that open the service now.

    The file is looked at once a second at most, while requests come. One that cannot be read
    changes nothing until it can, and the log says why, once.

    Args:
        path: The file.
        clock: Seconds that only go forward.

    Raises:
        ValueError: If the file cannot be read at the start.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._seen = _stamp(path)  # before it is read: a change between the two is seen later
        self._keys = read_keys(path)
        self._unread: tuple[Stamp, str] | None = None  # what was said of a file that was not read

    def find(self, token: bytes) -> Key | None:
        """The key that a client sent.

        Args:
            token: What it sent.

        Returns:
            The key, or None if there is no such key.
        """
        self._refresh()
        digest = _digest(token)
        found = None
        for key in self._keys:  # all of them, so that the time does not tell which
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        try:
            self._keys = read_keys(self._path)
        except ValueError as error:
            if self._unread != (stamp, str(error)):
                _LOG.error("the keys stay as they were: %s", error)
            self._unread = stamp, str(error)
        else:
            self._seen, self._unread = stamp, None
            _LOG.warning("%d keys were read from %s", len(self._keys), self._path)


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
