"""A process beside this one: another program of ours, which lives as long as it is wanted here."""

import os
import socket
import subprocess
import sys


def begin_companion(
    program: str, **environment: str
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Begin a program that takes a socket, and ends when our end of it is closed.

    The end of this process closes it too, however it comes. The terminal's Ctrl-C is not for the
    program, which finishes what it does.

    Args:
        program: Its module, whose only argument is the number of its end of the socket.
        **environment: Variables of its environment in place of those here.

    Returns:
        The process, and our end of the socket.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", program, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # It finds the modules that this one does.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            process_group=0,
        )
    return process, ours
