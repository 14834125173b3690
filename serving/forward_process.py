"""The process of the forwards: python -m onestep.serving.forward_process SOCKET."""

import logging
import os
import pickle
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

import torch

from .parcel import Asked, Hosting

_NICE: Final = 5
"""Of a core that it shares with somebody busy, a forward then has a quarter."""
_LOG: Final = logging.getLogger(__name__)


def main() -> None:
    """Gives each map that comes a thread, until the process that sends them has ended."""
    _give_way()
    control = socket.socket(fileno=int(sys.argv[1]))
    while True:
        _, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not sockets:  # at once, also where a forward never ends
            os._exit(0)
        threading.Thread(target=_host, args=(Connection(sockets[0]),), daemon=True).start()


def _give_way() -> None:
    """Lets those run first, where cores are short, who take requests in, answer and refuse."""
    with suppress(OSError):  # of a sandbox that forbids it
        os.nice(_NICE)
        if hasattr(os, "SCHED_BATCH"):  # of Linux: what wakes there takes no core from who runs
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@torch.inference_mode()
def _host(connection: Connection) -> None:
    """Answers what is asked of one map, as long as anybody may."""
    with connection, suppress(EOFError, OSError):  # the end of a connection is that of its map
        hosting: Hosting = pickle.loads(connection.recv_bytes())
        try:
            run = hosting.run()
        except Exception as error:
            connection.send_bytes(_failure(error))
            return
        connection.send_bytes(pickle.dumps(None))
        while True:
            asked: Asked = pickle.loads(connection.recv_bytes())
            try:
                answer = pickle.dumps(asked.answered(run, hosting.device), pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                answer = _failure(error)
            connection.send_bytes(answer)


def _failure(error: Exception) -> bytes:
    """An error as it is raised again where the map is asked; its traceback stays in the log."""
    _LOG.error("a forward failed", exc_info=error)
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
