"""Watchers: who is told, in words and with a bar, what a run is doing."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn, Protocol, final

from tqdm import tqdm

from ..experiment import Experiment
from .reporter import MemoryReporter, Reporter


class Watcher(Protocol):
    """Is told what a run is doing."""

    def say(self, line: str) -> None:
        """Take one line."""

    def counting(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A counter of things done, and of how many."""

    def training(self, experiment: Experiment) -> AbstractContextManager[Reporter]:
        """A reporter that shows how far the training is."""


@final
class Silence:
    """Says nothing, for tests and for runs inside other runs."""

    def say(self, line: str) -> None:
        """Take one line."""

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A counter that shows nothing."""
        del what
        yield lambda done, total: None

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        """A reporter that shows nothing."""
        del experiment
        yield MemoryReporter()


@final
class Console:
    """Lines and bars on the terminal, by tqdm.

    Args:
        prefix: Put before every line and bar.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def say(self, line: str) -> None:
        """Print one line above any bar."""
        tqdm.write(f"{self._prefix}{line}")
        sys.stdout.flush()  # in a file the line would else come when the run is over, or never

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar that counts things."""
        # Elsewhere than on a terminal a bar would be many lines.
        with tqdm(desc=f"{self._prefix}{what}", unit="", leave=False, disable=None) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show

    @contextmanager
    def training(self, experiment: Experiment) -> Iterator[Reporter]:
        """A bar of samples seen, with the loss, the speed and the time that is left."""
        total = experiment.training.steps * experiment.training.batch_size
        with tqdm(
            desc=f"{self._prefix}training",
            total=total,
            unit=" samples",
            unit_scale=True,
            disable=None,
        ) as bar:
            yield _BarReporter(bar)


@final
class _BarReporter:
    """Moves a bar."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Move the bar to the samples seen."""
        if "progress/samples" in metrics:
            # A weight may even the loss out, so that only the error shows what is learned.
            # Both are missing from a window in which the network of a game rests.
            shown = {"loss": metrics.get("loss/online"), "error": metrics.get("log/error")}
            known = {name: f"{value:.4g}" for name, value in shown.items() if value is not None}
            if known:
                self._bar.set_postfix(known, refresh=False)
            self._bar.update(metrics["progress/samples"] - self._bar.n)

    def close(self) -> None:
        """Nothing is held back."""
