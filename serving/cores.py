"""Cores of a machine that the forwards of one process have among those that serve."""

import errno
import logging
import os
import socket
import sys
import threading
from collections.abc import Set
from contextlib import suppress
from typing import Final, final

_NAME: Final = "\0onestep-core-{}"  # in Linux's abstract names, which end with their process
_LOG: Final = logging.getLogger(__name__)


@final
class Cores:
    """Cores that no other of these on the machine has, as long as the process lives.

    Other processes may run on them; but the system moves those, and no longer the forwards, to
    where there is room.

    Args:
        count: How many, at least 1.

    Raises:
        ValueError: If this system binds no thread to a core.
    """

    def __init__(self, count: int) -> None:
        if sys.platform != "linux":
            raise ValueError(
                "serve.pin must be false on a system that binds no thread to cores, "
                f"got true on {sys.platform}"
            )
        self._count = count
        self._held: dict[int, socket.socket] = {}
        self._taking = threading.Lock()

    def take(self) -> frozenset[int]:
        """The cores, from the first call on that finds so many free.

        Returns:
            Their numbers; none where fewer are free, which is logged.
        """
        with self._taking:
            if not self._held:
                self._held = self._take()
            return frozenset(self._held)

    def close(self) -> None:
        """Leaves them to others before the process ends."""
        for held in self._held.values():
            held.close()
        self._held = {}

    def _take(self) -> dict[int, socket.socket]:
        found: dict[int, socket.socket] = {}
        # From the last, because systems like to answer their devices on the first.
        for number in sorted(os.sched_getaffinity(0), reverse=True):
            if (held := _hold(number)) is not None:
                found[number] = held
            if len(found) == self._count:
                return found
        for held in found.values():
            held.close()
        _LOG.warning(
            "serve.pin needs cores that no other replica has, %d, got %d: "
            "forwards run wherever there is room",
            self._count,
            len(found),
        )
        return {}


def leave(cores: Set[int]) -> None:
    """Keeps this process, and the threads it starts from now on, off cores that others work on.

    Args:
        cores: Their numbers; where there are no others the threads stay.
    """
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has just ended
            if others := os.sched_getaffinity(int(thread)) - cores:
                os.sched_setaffinity(int(thread), others)


def _hold(number: int) -> socket.socket | None:
    """What holds a core; None where another holds it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_NAME.format(number))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return held
