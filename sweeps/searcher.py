"""What stands between Ray Tune and the book of a sweep: its searcher and its scheduler."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, final

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from .book import UNEXPECTED, Book
from .cost import Cost
from .death import death_of
from .objective import Number
from .outage import past_tune
from .record import (
    CHOSEN,
    COST,
    DIVERGED,
    ERROR,
    OUTAGE,
    OVERRIDES,
    RESULTS,
    RETURNS,
    RUNG,
    SAMPLES,
    WENT_BACK,
)
from .subtrial import SubTrial

NUMBER: Final = "number"
KNOWN: Final = "known"
"""Key of the sub-trials that are known already, in the configuration of a trial."""
SUBTRIAL: Final = "subtrial"
"""Key of a sub-trial, as JSON, in what a trial reports after its training."""
BEGINNING: Final = "beginning"
SPAN: Final = "span"
REPORT: Final = "report"
"""Key of the whole report, as JSON, in the last result of a trial."""


@final
class BookSearch(Searcher):
    """Takes trials from the book, and hands it what Ray Tune says of their ends.

    Args:
        book: The book.
    """

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book
        self._numbers: dict[str, int] = {}

    @past_tune()
    def suggest(self, trial_id: str) -> Any:
        """The overrides of a new trial.

        Args:
            trial_id: Ray Tune's name of the trial.

        Returns:
            The trial's configuration: its number and the overrides that are its own. Ray Tune
            writes it into files, so that those of all trials, with passwords, are not in it. Or
            that no other is to be started.
        """
        suggestion = self._book.suggest()
        if suggestion is None:  # what is running may make others worth while
            return Searcher.FINISHED if self._book.is_done else None
        self._numbers[trial_id], beginning = suggestion.number, suggestion.beginning
        return {
            NUMBER: suggestion.number,
            OVERRIDES: list(suggestion.own),
            RUNG: suggestion.rung,
            KNOWN: [one.to_dict() for one in suggestion.known],
            BEGINNING: None if beginning is None else asdict(beginning),
            SPAN: None if suggestion.span is None else list(suggestion.span),
        }

    @past_tune()
    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close a trial.

        Args:
            trial_id: Ray Tune's name of the trial.
            result: What the trial reported last.
            error: Whether its process failed; the scheduler has told the book.
        """
        number, last = self._numbers.pop(trial_id), result or {}
        if error:
            return
        if RESULTS not in last:
            self._book.fail(
                number,
                last.get(ERROR, UNEXPECTED),
                cost=cost_of(last),
                has_diverged=DIVERGED in last,
            )
            return
        self._book.end(
            number,
            numbers_of(last),
            samples=int(last[SAMPLES]),
            report=last.get(REPORT, ""),
            cost=cost_of(last),
            returns=json.loads(last.get(RETURNS, "[]")),
            chosen=json.loads(last.get(CHOSEN, "{}")),
        )

    def __getstate__(self) -> dict[str, Any]:
        # For Ray Tune's pickle of the sweep, which would hold the URL of the database.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing: the study is what a sweep goes on from.

        Args:
            checkpoint_path: Where Ray Tune would have a pickle.
        """

    def restore(self, checkpoint_path: str) -> None:
        """Reads nothing.

        Args:
            checkpoint_path: Where Ray Tune would have a pickle.
        """


@final
class BookScheduler(FIFOScheduler):
    """Lets trials go on until the book says that one is to be stopped; has it judge deaths.

    Args:
        book: The book.
    """

    def __init__(self, book: Book) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._book = book

    @past_tune()
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on.

        Args:
            tune_controller: Ray Tune.
            trial: Ray Tune's trial.
            result: What it has reported.
        """
        if SUBTRIAL in result:
            told = SubTrial.from_dict(json.loads(result[SUBTRIAL]))
            self._book.tried(trial.config[NUMBER], told)
        if WENT_BACK in result:
            self._book.went_back(trial.config[NUMBER], to=int(result[WENT_BACK]))
        if RESULTS not in result or REPORT in result:
            return TrialScheduler.CONTINUE
        is_over = self._book.measured(
            trial.config[NUMBER],
            numbers_of(result),
            samples=int(result[SAMPLES]),
            cost=cost_of(result),
        )
        return TrialScheduler.STOP if is_over else TrialScheduler.CONTINUE

    @past_tune()
    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Close a trial that failed; one that was killed or met an outage is to go on.

        Args:
            tune_controller: Ray Tune.
            trial: Ray Tune's trial.
        """
        number, last = trial.config[NUMBER], trial.last_result or {}
        death = None if OUTAGE in last else death_of(trial)
        if OUTAGE in last:
            self._book.put_off(number, last[OUTAGE])
        elif death is None:
            self._book.fail(number, last.get(ERROR, UNEXPECTED), cost=cost_of(last))
        else:
            self._book.lose(number, death)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def numbers_of(result: Mapping[str, Any]) -> list[Number]:
    """The objectives in what a trial reports."""
    return [Number(value=value, low=low, high=high) for value, low, high in result[RESULTS]]


def cost_of(result: Mapping[str, Any]) -> Cost:
    """What a trial has taken, in what it reports; nothing is known of a process that was killed."""
    return Cost(**json.loads(result.get(COST, "{}")))
