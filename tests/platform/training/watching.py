"""A watcher that acts on what it is told, to meddle with a run from inside."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import final

from onestep.platform.experiment import Experiment
from onestep.platform.training.reporter import MemoryReporter, Reporter
from onestep.platform.training.watcher import Silence


def nothing(*told: object) -> None:
    del told


@final
class Meddler:
    """Says nothing, and acts on what it is told.

    Args:
        said: Called with every line.
        begun: Called as a training begins, once its run has been opened.
        reporter: Told the metrics.
    """

    def __init__(
        self,
        *,
        said: Callable[[str], object] = nothing,
        begun: Callable[[], object] = nothing,
        reporter: Reporter | None = None,
    ) -> None:
        self._said, self._begun = said, begun
        self._reporter = MemoryReporter() if reporter is None else reporter

    def say(self, line: str) -> None:
        self._said(line)

    def counting(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return Silence().counting(what)

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        del experiment
        self._begun()
        yield self._reporter
