"""What a sweep found: its trials from best to worst, and the best one's command line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from ..platform.atomic import write_json, write_text
from .ancestry import ancestry
from .ending import ANEW
from .objective import Mode, Objectives
from .ranking import fronts_of
from .record import Outcome, TrialRecord
from .settings import SweepSettings
from .yardstick import yardsticks

TABLE: Final = "table.md"
RECORDS: Final = "trials.json"
FRONT_FIRST: Final = "Those of the Pareto set come first."
"""What is said of trials from best to worst where there are several objectives."""
_RANKS: Final = ((Outcome.FINISHED,), (Outcome.UNDERWAY, Outcome.STOPPED), (Outcome.FAILED,))


@final
@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        best: The best trial; with several objectives the one of the Pareto set that is best in the
            first.
        trials: All trials that ended, by number.
        study_name: Name of the sweep and of its Optuna study.
        storage: URL of Optuna's database.
        folder: Where table, page and reports are.
        model: The best trial's model as it is registered; None if that trial was stopped early.
    """

    best: TrialRecord
    trials: tuple[TrialRecord, ...]
    study_name: str
    storage: str
    folder: Path
    model: str | None = None

    @property
    def best_overrides(self) -> tuple[str, ...]:
        """Overrides that repeat the best trial, without the passwords of stores."""
        return self.best.overrides

    @property
    def best_value(self) -> float:
        """Its first objective."""
        return self.best.results[0].value

    @property
    def command(self) -> str:
        """The shell line that repeats the best trial."""
        return self.best.command


def ranked(trials: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    """Trials from best to worst: whole ones, then others that were measured, then failed ones.

    Those of a kind stand by their fronts, the Pareto set first, and in a front by the first
    objective. Those that did not run whole are first ordered by how far they came, and members of a
    population by their generations. Whole runs end at whole batches, so that a few samples more or
    less, as batches of another size bring them, decide nothing.

    Args:
        trials: The trials.
        objectives: The numbers to improve.
    """
    ordered: list[TrialRecord] = []
    for outcomes in _RANKS:
        some = [one for one in trials if one.outcome in outcomes]
        for reached in sorted(set(map(_reached, some)), reverse=True):
            ordered += _by_results([one for one in some if _reached(one) == reached], objectives)
    return ordered


def _reached(trial: TrialRecord) -> int:
    """How far a trial came, for those of its kind to be ordered by; whole runs are all equal."""
    if trial.rung is not None:
        return trial.rung
    is_whole = trial.outcome is Outcome.FINISHED and trial.lineage is None
    return 0 if is_whole else trial.samples


def _by_results(trials: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    measured = {one.number: one for one in trials if one.results}
    points = {k: objectives.smaller_is_better(one.results) for k, one in measured.items()}
    fronts = fronts_of(points)
    order = sorted(measured, key=lambda k: (fronts[k], points[k][0], k))
    return [*(measured[k] for k in order), *(one for one in trials if not one.results)]


def result_of_sweep(
    trials: tuple[TrialRecord, ...],
    settings: SweepSettings,
    *,
    study_name: str,
    storage: str,
    folder: Path,
) -> SweepResult:
    """The result of trials of which at least one came to its end.

    Args:
        trials: The trials.
        settings: The sweep.
        study_name: Name of the sweep.
        storage: URL of Optuna's database.
        folder: Folder of the sweep.

    Returns:
        The result.

    Raises:
        ValueError: If all trials failed.
    """
    best = next(iter(ranked(trials, settings.objectives)), None)
    if best is None or not best.results:
        reason = "" if best is None else f", the first with {best.reason}"
        raise ValueError(
            f"all {len(trials)} trials of sweep {study_name} failed{reason}; when that is mended, "
            f"{ANEW}"
        )
    return SweepResult(
        best=best, trials=trials, study_name=study_name, storage=storage, folder=folder
    )


def write_report(
    trials: Sequence[TrialRecord],
    settings: SweepSettings,
    *,
    name: str,
    folder: Path,
    ending: str = "",
    untried: str = "",
) -> None:
    """Write table and records of trials into the folder of a sweep.

    Args:
        trials: The trials that ended or were measured.
        settings: The sweep.
        name: Name of the sweep.
        folder: Its folder.
        ending: Why the sweep has ended; nothing where it has not.
        untried: What became of the points that are no trials; nothing where there are none.
    """
    best = ranked(trials, settings.objectives)[:1]
    marks = yardsticks(best[0], settings.objectives, folder) if best else []
    text = table(trials, settings, name=name, ending=ending, untried=untried, marks=marks)
    write_text(folder / TABLE, text)
    write_json(folder / RECORDS, [_plain(trial) for trial in trials])


def table(
    trials: Sequence[TrialRecord],
    settings: SweepSettings,
    *,
    name: str,
    ending: str = "",
    untried: str = "",
    marks: Sequence[str] = (),
) -> str:
    """The trials from best to worst, as Markdown.

    Args:
        trials: The trials that ended or were measured.
        settings: The sweep.
        name: Name of the sweep.
        ending: Why the sweep has ended; nothing where it has not.
        untried: What became of the points that are no trials; nothing where there are none.
        marks: What the numbers of the best trial are to be compared with.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    is_population = any(one.lineage for one in trials)
    of_lineage = ["member", "goes on from"] if is_population else []
    used = ["used so"] if settings.posthoc is not None else []
    objectives = map(str, settings.objectives.all)
    rows = [["trial", *of_lineage, *keys, *objectives, *used, "samples", "outcome"]]
    ordered = ranked(trials, settings.objectives)
    for trial in ordered:
        values = [shown(trial.values[key]) if key in trial.values else "-" for key in keys]
        numbers = [str(one) for one in trial.results] or ["-"] * len(settings.objectives.all)
        rows.append(
            [
                str(trial.number),
                *(_place(trial) if is_population else []),
                *values,
                *numbers,
                *([trial.said or "-"] if used else []),
                str(trial.samples) if trial.samples else "-",
                ": ".join(filter(None, [str(trial.outcome), trial.remark])),
            ]
        )
    rows = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    best = [trial for trial in ordered[:1] if trial.results]
    line = ancestry(best[0], trials, settings.objectives) if best and best[0].lineage else []
    again = [
        line
        for one in best
        for line in (f"{_named(one)}, {_again(one)}:", "", f"    {one.command}")
    ]
    title = f"Sweep {name}: {wanted(settings)}, with intervals at 95 %"
    title += f". {FRONT_FIRST}" if len(settings.objectives.all) > 1 else ""
    told = ["The line of the best trial:", "", *(f"- {one}" for one in line), ""] if line else []
    over = [f"It has ended: {ending}.", ""] if ending else []
    beside = [*([untried, ""] if untried else []), *([*marks, ""] if marks else [])]
    return "\n".join([title, "", *over, *lines, "", *beside, *told, *again, ""])


def _named(best: TrialRecord) -> str:
    if best.outcome is Outcome.FINISHED:
        return "The best trial"
    if best.outcome is Outcome.UNDERWAY:
        return "No trial has run whole yet. The best at the highest rung"
    return "No trial ran whole. The best of those that were stopped"


def _again(best: TrialRecord) -> str:
    return f"its training again, to be used with {best.said}" if best.said else "again"


def _place(trial: TrialRecord) -> list[str]:
    lineage = trial.lineage
    if lineage is None:
        return ["-", "-"]
    return [str(lineage.member), "-" if lineage.parent is None else f"trial {lineage.parent}"]


def promotion(model: str, name: str) -> str:
    """The shell line that lets an alias mean a registered model.

    Args:
        model: The model.
        name: Name of the sweep that it is the best of.
    """
    return f'onestep registry promote {model} champion --why "best of {name}"'


def wanted(settings: SweepSettings) -> str:
    """The objectives of a sweep, with what is better."""
    return ", ".join(
        f"{one} ({'smaller' if one.mode is Mode.MIN else 'larger'} is better)"
        for one in settings.objectives.all
    )


def shown(value: object) -> str:
    """A value of a key, short enough for a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(trial: TrialRecord) -> dict[str, object]:
    return {**asdict(trial), "outcome": str(trial.outcome)}
