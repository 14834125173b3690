"""Where a run tells what it measures: memory in tests, Weights & Biases for people."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, final

from ..password import without_passwords

_LOGGER: Final = logging.getLogger(__name__)
_WITHOUT_LOGIN: Final = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE for which nothing is sent."""


class Reporter(Protocol):
    """Takes the metrics of a run, named `family/name`, and on some occasions a checkpoint."""

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Take metrics of one step.

        Args:
            metrics: Values by name.
            step: Steps taken so far.
            checkpoint: Folder of a checkpoint written at this step, or None.
        """

    def close(self) -> None:
        """Hand on whatever is still held; nothing is reported afterwards."""


@final
class MemoryReporter:
    """Keeps all reports, for tests and for runs that nobody watches.

    Attributes:
        rows: The metrics of each report, with its `step`.
        checkpoints: The checkpoints, in order.
    """

    rows: list[dict[str, float]]
    checkpoints: list[Path]

    def __init__(self) -> None:
        self.rows = []
        self.checkpoints = []

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Keep metrics, and the checkpoint if there is one."""
        self.rows.append({"step": step, **metrics})
        if checkpoint is not None:
            self.checkpoints.append(checkpoint)

    def close(self) -> None:
        """Nothing is held back."""


@final
class WandbReporter:
    """Writes metrics to a Weights & Biases run, which stays on this machine unless told otherwise.

    Args:
        folder: Where its files go.
        project: Group of runs.
        name: Name of the run.
        run_id: Which run it is; a later process goes on with the same one.
        config: The resolved configuration; passwords of stores are left out.
        group: What the run is a part of, such as a sweep; empty for nothing.
        mode: `offline`, `online` or `disabled`; None for WANDB_MODE, and offline without it.

    Raises:
        ValueError: If it cannot be reached, or nobody is logged in.
    """

    def __init__(
        self,
        *,
        folder: Path,
        project: str,
        name: str,
        run_id: str,
        config: Mapping[str, Any],
        group: str = "",
        mode: Literal["offline", "online", "disabled"] | None = None,
    ) -> None:
        import wandb  # takes seconds, and most runs do without

        if mode is None and not os.environ.get("WANDB_MODE"):
            mode = "offline"
        folder.mkdir(parents=True, exist_ok=True)  # or it silently writes elsewhere
        with _asking_wandb():
            self._run = wandb.init(
                dir=str(folder),
                project=project,
                name=name,
                id=run_id,
                group=group or None,
                resume="allow",
                config=without_passwords(config),
                mode=mode,
                reinit="create_new",
                # Its metadata hold the command line, with the passwords of stores.
                settings=wandb.Settings(silent=True, console="off", x_disable_meta=True),
            )

    @property
    def folder(self) -> Path:
        """Folder of the run's files."""
        return Path(self._run.dir).parent

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Write metrics; checkpoints are not sent."""
        del checkpoint
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()

    def fail(self) -> None:
        """End the run as one that failed."""
        self._run.finish(exit_code=1)


def check_wandb() -> None:
    """Refuse Weights & Biases online without a login that it accepts, before a run begins.

    Raises:
        ValueError: If it cannot be reached, or nobody is logged in.
    """
    if os.environ.get("WANDB_MODE") in (None, "", *_WITHOUT_LOGIN):
        return
    import wandb

    with _asking_wandb():
        wandb.login(verify=True)


@contextmanager
def _asking_wandb() -> Iterator[None]:
    """Turn what goes wrong at Weights & Biases into one sentence."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "Weights & Biases needs WANDB_MODE=offline, or online after `wandb login`, got "
            f"WANDB_MODE={os.environ.get('WANDB_MODE', '')} and: {reason}"
        ) from error


@final
class ManyReporters:
    """Passes each report on to several reporters.

    Args:
        reporters: The reporters, in the order in which they are told.
    """

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Tell every reporter, even if one of them fails."""
        with ExitStack() as stack:
            for reporter in reversed(self._reporters):
                stack.callback(reporter.report, metrics, step=step, checkpoint=checkpoint)

    def close(self) -> None:
        """Close every reporter, even if one of them fails."""
        with ExitStack() as stack:
            for reporter in reversed(self._reporters):
                stack.callback(reporter.close)
