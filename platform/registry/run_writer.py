"""Runs that are over are written by a process of their own, which holds nobody up here."""

import pickle
import subprocess
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from typing import Final, final

from ..companion import begin_companion
from .connection import Connection
from .errors import RegistryUnreachable
from .run import EndedRun

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

    def write(self, run: EndedRun) -> None:
        """Write down a run, as ``Run.write`` does.

        Args:
            run: The run.

        Raises:
            RegistryUnreachable: If the store does not answer, or the process has ended.
            RuntimeError: If the store refuses the run.
        """
        try:
            pipe = self._pipe or self._begin()
            pipe.send_bytes(pickle.dumps(run))
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

    def _begin(self) -> Pipe:
        self._process, ours = begin_companion(PROGRAM)
        self._pipe = Pipe(ours.detach())
        self._pipe.send_bytes(pickle.dumps(self._connection))
        return self._pipe
