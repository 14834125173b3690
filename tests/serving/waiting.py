"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within a minute."""
    end = time.monotonic() + 60.0
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()
