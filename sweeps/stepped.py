"""Trials as Ray Tune runs them: each goes on until it has something to tell, and waits."""

from collections.abc import Callable, Mapping
from typing import Any, final

from greenlet import getcurrent, greenlet
from ray import tune
from ray.tune.result import DONE

Row = Mapping[str, Any]
"""What a trial tells."""
Tell = Callable[[Row], None]
TrialFunction = Callable[..., Row]
"""Runs a trial: takes its configuration and `tell`, for rows on its way, and returns the last."""


@final
class SteppedTrial(tune.Trainable):
    """A function that runs a trial, as a class of Ray Tune.

    Ray Tune would run the function in a thread, which it asks for more once it has ended, at times
    for a fifth of a second, and which outlives a trial that is stopped. Here a step is the way from
    one row to the next, in the thread of the process, and who is stopped is left by an exception.
    """

    def setup(self, config: dict[str, Any], run: TrialFunction | None = None, **parts: Any) -> None:
        """Begin a trial in a new process.

        Args:
            config: What the searcher suggested.
            run: Runs it.
            **parts: What else it is given.
        """
        assert run is not None, "it is bound by run_trials"
        self._run, self._parts = run, parts
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._leave()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Go on to the next row."""
        row: Row = self._way.switch()
        return {**row, DONE: self._way.dead}

    def cleanup(self) -> None:
        """Leave the trial; its process ends."""
        self._leave()

    def _begin(self, config: dict[str, Any]) -> None:
        self._way = greenlet(lambda: self._run(config, tell=_tell, **self._parts))

    def _leave(self) -> None:
        if self._way:
            self._way.throw()  # GreenletExit, which its `with` and `finally` see


def _tell(row: Row) -> None:
    leader = getcurrent().parent
    assert leader is not None, "a trial tells of itself within a step"
    leader.switch(row)
