"""Runs that are over are written by a process of their own, which holds nobody up here."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Final, Self, final

from .connection import Connection
from .errors import RegistryUnreachable
from .run import Measurement, RunFacts

PROGRAM: Final = "onestep.platform.registry.run_process"
_FAREWELL_S: Final = 5.0


@final
class RunWriter:
    """Has runs written down by another process, one after another; one thread at a time may ask.

    The process begins with the first run, and lives as long as this one, or until this is closed.

    Args:
        connection: The store.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None

    def write(
        self,
        facts: RunFacts,
        *,
        tags: Mapping[str, str],
        measurements: Sequence[Measurement],
        texts: Mapping[str, str],
        status: str,
    ) -> None:
        """Write down a run that is over, as ``Run.write`` does.

        Args:
            facts: What was known before the first step.
            tags: Tags beside those of the facts.
            measurements: Metrics by step.
            texts: Texts that are kept as artifacts, by file.
            status: FINISHED, FAILED or KILLED.

        Raises:
            RegistryUnreachable: If the store does not answer, or the process has ended.
            RuntimeError: If the store refuses the run.
        """
        asked = {
            "facts": facts,
            "tags": tags,
            "measurements": measurements,
            "texts": texts,
            "status": status,
        }
        pipe = self._pipe or self._begin()
        try:
            pipe.send_bytes(pickle.dumps(asked))
            error: Exception | None = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError) as ended:
            self.close()  # the next run has another process
            raise RegistryUnreachable("the process that writes runs has ended") from ended
        if error is not None:
            raise error

    def close(self) -> None:
        """End the process, as the end of this one does."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL_S)
        self._process = self._pipe = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> Pipe:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # It finds what this one does, and the terminal's Ctrl-C is not for it: the run that
                # it writes then is still written whole.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                process_group=0,
            )
        self._pipe = Pipe(ours.detach())
        self._pipe.send_bytes(pickle.dumps(self._connection))
        return self._pipe
