"""The process that writes runs: python -m onestep.platform.registry.run_process SOCKET."""

import pickle
import sys
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe

from .connection import Connection
from .errors import RegistryUnreachable
from .run import EndedRun, Run


class _Store:
    """The store, which is opened by the first run that it answers.

    Args:
        connection: A pickled connection.
    """

    def __init__(self, connection: bytes) -> None:
        self._pickled = connection
        self._connection: Connection | None = None
        self._groups: dict[str, str] = {}

    def write(self, run: EndedRun) -> None:
        """Write down one run."""
        self._connection = self._connection or pickle.loads(self._pickled)
        name = run.facts.experiment
        if name not in self._groups:
            self._groups[name] = self._connection.experiment(name)
        Run.write(self._connection, run, group=self._groups[name])


def main() -> None:
    """Writes each run that comes, until who sends them has ended."""
    with Pipe(int(sys.argv[1])) as pipe, suppress(EOFError, OSError):
        store = _Store(pipe.recv_bytes())
        while True:
            run: EndedRun = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(pickle.dumps(_written(store, run)))


def _written(store: _Store, run: EndedRun) -> Exception | None:
    """What went wrong, as it is raised again by who asked."""
    try:
        store.write(run)
    except RegistryUnreachable as error:
        return error
    except Exception as error:  # those of libraries may not come through a pipe
        return RuntimeError(f"{type(error).__name__}: {error}")
    return None


if __name__ == "__main__":
    main()
