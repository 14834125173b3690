"""The processor time of a trial's training, wherever it is trained."""

import time
from collections.abc import Mapping
from typing import final

from ..platform.experiment import Workers
from ..platform.training.ray_train import WORKER_BEGUN, WORKER_S


@final
class Stopwatch:
    """Counts the processor time of this process, or of the workers of a group.

    Of these the leading one tells its own, as long as it lives; the others take as long, for they
    wait for each other at every step.

    Args:
        workers: On what the trial is trained.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._told = self._group_s = self._begun = 0.0
        self.restart()

    def note(self, metrics: Mapping[str, float]) -> None:
        """Take what the leading worker tells of its time, if this is among the metrics.

        Args:
            metrics: A row of metrics.
        """
        now, begun = metrics.get(WORKER_S), metrics.get(WORKER_BEGUN)
        if now is None or begun is None:
            return
        since = self._told if begun == self._begun else 0.0  # another one leads, in its place
        self._group_s += (now - since) * self._workers.num_workers
        self._told, self._begun = now, begun

    def restart(self) -> None:
        """Count from here."""
        self._since = self._now

    @property
    def seconds(self) -> float:
        """Seconds since the last restart."""
        return self._now - self._since

    @property
    def _now(self) -> float:
        return self._group_s if self._workers.uses_ray else time.process_time()
