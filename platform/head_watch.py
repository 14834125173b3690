"""The head of a Ray cluster: a process that loses it says so and ends, ready to be repeated."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

LOST: Final = os.EX_TEMPFAIL
"""Exit code of a process whose cluster died: the same command goes on when there is one again."""
_POLL_S: Final = 1.0
_ANSWER_S: Final = 5.0
_RECONNECT: Final = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""After so many seconds without a head Ray ends the process from within, by a stack trace."""
_RECONNECT_S: Final = 60.0
_EARLIER_S: Final = 10.0


@contextmanager
def watched(address: str, *, end: Callable[[str], None] | None = None) -> Iterator[None]:
    """End this process if the head of its cluster is gone for good, as long as the block lasts.

    Nothing can be raised instead: calls into Ray hang then, its shutdown among them. A head that
    is restarted in time is waited for. One that does not answer at the beginning, as from outside
    its network, is not watched.

    Args:
        address: Host and port of the head.
        end: Told the sentence in the place of ending the process.

    Yields:
        None: While the head is watched.
    """
    if not answers(address):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(address, over, end or _end), daemon=True, name="head-watch"
    )
    thread.start()
    try:
        yield
    except BaseException:
        # It comes from there, and to leave would hang.
        while thread.is_alive() and not answers(address):
            time.sleep(_POLL_S)
        raise
    finally:
        over.set()
        thread.join()


def answers(address: str) -> bool:
    """Whether somebody listens at an address.

    Args:
        address: Host and port.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True


def patience_s() -> float:
    """Seconds that a head may be away, a little less than Ray would wait."""
    within = float(os.environ.get(_RECONNECT, _RECONNECT_S))
    return max(within / 2.0, within - _EARLIER_S)


def _watch(address: str, over: threading.Event, end: Callable[[str], None]) -> None:
    patience, seen = patience_s(), time.monotonic()
    while not over.wait(_POLL_S):
        if answers(address):
            seen = time.monotonic()
        elif time.monotonic() - seen > patience and not over.is_set():
            end(
                f"the head of the Ray cluster at {address} has been gone for {patience:.0f} "
                "seconds; nothing that has ended is lost: when there is a cluster again, the same "
                "command goes on, that of a sweep with resume=auto"
            )
            return


def _end(sentence: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"onestep: {sentence}\n")
    sys.stderr.flush()
    os._exit(LOST)
