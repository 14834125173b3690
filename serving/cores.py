"""Cores of a machine that the forwards of one process have among those that serve."""

import logging
import os
import socket
import sys
from typing import Final, final

_NAME: Final = "\0onestep-core-{}"  # in Linux's abstract names, which end with their process
_LOG: Final = logging.getLogger(__name__)


@final
class Cores:
    """Cores that no other of these on the machine has, until it is closed or its process ends.

    Other processes may run on them; but the system moves those, and no longer the forwards, to
    where there is room.

    Args:
        count: How many, at least 1.

    Attributes:
        numbers: Their numbers; none where fewer are free, which is logged.

    Raises:
        ValueError: If this system binds no thread to a core.
    """

    def __init__(self, count: int) -> None:
        if not hasattr(os, "sched_setaffinity"):
            raise ValueError(
                "serve.pin must be false on a system that binds no thread to cores, "
                f"got true on {sys.platform}"
            )
        found: dict[int, socket.socket] = {}
        # From the last, because systems like to answer their devices on the first.
        for number in sorted(os.sched_getaffinity(0), reverse=True):
            if len(found) < count and (held := _hold(number)) is not None:
                found[number] = held
        self._held = found if len(found) == count else {}
        self.numbers = frozenset(self._held)
        if not self._held:
            for held in found.values():
                held.close()
            _LOG.warning(
                "serve.pin needs cores that no other replica has, %d, got %d: "
                "forwards run wherever there is room",
                count,
                len(found),
            )

    def close(self) -> None:
        """Leaves the cores to others."""
        for held in self._held.values():
            held.close()


def _hold(number: int) -> socket.socket | None:
    """What holds a core; None where another holds it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_NAME.format(number))
    except OSError:
        held.close()
        return None
    return held
