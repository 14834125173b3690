"""Trials of Ray Tune that failed, with the errors that Ray raises."""

from collections.abc import Mapping
from typing import Any, final

from ray.exceptions import RayActorError, RayTaskError


@final
class FailedTrial:
    """What a scheduler is told of a trial that failed.

    Args:
        config: What the searcher suggested.
        error: What Ray raised.
        last: What the trial reported last.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        error: Exception | None,
        last: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.last_result, self._error = config, last, error

    def get_pickled_error(self) -> Exception | None:
        """The error; Ray Tune pickles those of tasks and actors alone."""
        return self._error if isinstance(self._error, RayTaskError | RayActorError) else None

    def get_error(self) -> str | None:
        """The text that Ray Tune writes."""
        return None if self._error is None else f"Failure # 1\n{self._error}\n"
