"""Ray Tune: it runs the trials that a book suggests, on processes that are used again."""

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ray import tune

from .book import Book
from .record import RUNG
from .searcher import NUMBER, BookScheduler, BookSearch
from .stepped import SteppedTrial, TrialFunction

_TUNE: Final = {
    # Trials find data by the folder that the sweep was started in.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # An interrupt ends the sweep at once; the study knows what has ended.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The study, the journal and MLflow keep the results, and a sweep goes on from its study.
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The new output prints a panel whatever the verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(
    run: TrialFunction,
    book: Book,
    *,
    resources: Mapping[str, float],
    parts: Mapping[str, Any] | None = None,
    concurrency: int,
    callbacks: Sequence[tune.Callback],
    folder: Path,
) -> None:
    """Run trials until the book has no more; Ray is up.

    Args:
        run: Runs a trial.
        book: Who suggests them.
        resources: What each takes.
        parts: What else each is given. It goes by way of Ray's memory, not of the files in which
            Ray Tune keeps what it runs.
        concurrency: Trials at once.
        callbacks: Told what becomes of them.
        folder: Folder of the sweep.
    """
    for key, value in _TUNE.items():
        os.environ.setdefault(key, value)
    # It says of a trial that was retried that it did not complete.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # It misses the files of the loggers that are off.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    trial = tune.with_parameters(SteppedTrial, run=run, **(parts or {}))
    tune.Tuner(
        tune.with_resources(trial, dict(resources)),
        tune_config=tune.TuneConfig(
            num_samples=-1,  # the book says when it is enough
            max_concurrent_trials=concurrency,
            search_alg=BookSearch(book),
            scheduler=BookScheduler(book),
            reuse_actors=True,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder),
            callbacks=list(callbacks),
            verbose=0,
            # Trials keep their own.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def _name_of(trial: Any) -> str:
    number, rung = trial.config[NUMBER], trial.config[RUNG]
    return f"trial-{number}" if rung is None else f"trial-{number}-rung-{rung}"
