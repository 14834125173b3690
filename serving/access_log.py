"""The access log: a line for each request, on stderr or in a file."""

import logging
import sys
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final, final

ACCESS: Final = logging.getLogger("onestep.access")
_LOGGER: Final = logging.getLogger(__name__)
_STDERR: Final = "stderr"


@final
class _Stderr(logging.Handler):
    """Writes to what stderr is at the time, which Ray keeps in the log of a replica."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line; a stderr that is gone costs the line, not the request."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except (OSError, ValueError):
            self.handleError(record)


@final
class _File(WatchedFileHandler):
    """Appends to a file, also after it has been moved away to begin another."""

    _loses, _has_lost = False, False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line; a disk that is full costs the line, not the request."""
        self._loses = False
        try:
            super().emit(record)
        except OSError:  # of the file that is opened again
            self.handleError(record)
        self._has_lost = self._loses

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says once, until lines are written again, that they are lost."""
        del record
        self._loses = True
        if not self._has_lost:
            _LOGGER.warning("lines of the access log are lost: %s", sys.exception())


def open_access_log(file: str | None) -> None:
    """Lets the lines of the log reach a file and nothing else.

    Args:
        file: The file, to whose end they go; None for stderr.

    Raises:
        OSError: If it cannot be written.
    """
    ACCESS.setLevel(logging.INFO)
    ACCESS.propagate = False
    name = file or _STDERR
    if any(handler.name == name for handler in ACCESS.handlers):
        return
    handler = _Stderr() if file is None else _File(file)
    handler.set_name(name)
    for former in [one for one in ACCESS.handlers if isinstance(one, _Stderr | _File)]:
        ACCESS.removeHandler(former)
        with suppress(OSError):  # lines that a full disk has not taken
            former.close()
    ACCESS.addHandler(handler)


def check_access_file(file: str | None) -> None:
    """Refuses a file that cannot be written, before anything is started for it.

    Args:
        file: The file, which is made where there is none; None for stderr.

    Raises:
        ValueError: If it cannot.
    """
    try:
        if file is not None:
            Path(file).open("a").close()
    except OSError as error:
        raise ValueError(
            f"serve.access_file must be a file that can be written, got {file}: {error.strerror}"
        ) from error
