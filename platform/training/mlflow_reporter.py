"""Where a run tells MLflow what it measures; trials, which start fast, do without its import."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, final

from ..registry.errors import RegistryUnreachable
from ..registry.run import Measurement, Run, now_ms

_LOGGER: Final = logging.getLogger(__name__)
_LONGEST_PAUSE_S: Final = 60.0


@final
class MlflowReporter:
    """Writes metrics to an MLflow run, many at once, so that the loop hardly notices.

    A store that is away for a while does not end the training: reports are held, the next attempt
    waits longer, and only `close` fails, if the store is still away then. Checkpoints are not sent.

    Args:
        run: The run.
        every_s: Pause between two calls to the store, in seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self, run: Run, *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._every_s = every_s
        self._clock = clock
        self._pause_s = every_s
        self._sent_at = clock()
        self._held: list[Measurement] = []

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Hold metrics, and send what is held if the pause is over."""
        del checkpoint
        self._held.append(Measurement(step=step, metrics=dict(metrics), at_ms=now_ms()))
        if self._clock() - self._sent_at >= self._pause_s:
            self._try_to_send()

    def close(self) -> None:
        """Send what is held.

        Raises:
            RegistryUnreachable: If the store does not answer.
        """
        self._send()

    def _try_to_send(self) -> None:
        try:
            self._send()
            self._pause_s = self._every_s
        except RegistryUnreachable as error:
            self._pause_s = min(2.0 * self._pause_s + 1.0, _LONGEST_PAUSE_S)
            _LOGGER.warning("%d reports held back: %s", len(self._held), error)
        self._sent_at = self._clock()

    def _send(self) -> None:
        self._run.log_measurements(self._held)
        self._held.clear()
