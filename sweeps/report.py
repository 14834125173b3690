"""What a sweep found: a table of its trials, the best one's command line, and a figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from matplotlib.figure import Figure

from ..platform.atomic import write_json, write_text
from ..platform.evaluation.figures import save_png
from .dimension import Kind
from .objective import Mode, Objectives
from .ranking import ranked as rank_of
from .record import Outcome, TrialRecord
from .settings import SweepSettings

TABLE: Final = "table.md"
FIGURE: Final = "metric.png"


@final
@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        best: The best trial; with several objectives the best of the Pareto set in the first.
        trials: All trials that ended, by number.
        study_name: Name of the sweep and of its Optuna study.
        storage: URL of Optuna's database.
        folder: Where table, figure and reports are.
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
    """Trials from best to worst: whole ones, then those stopped early, then failed ones.

    Those of a kind stand by the fronts of the Pareto set, and in a front by what each adds to it.
    Those that were stopped are first ordered by how far they came.

    Args:
        trials: The trials.
        objectives: The numbers to improve.
    """
    ordered: list[TrialRecord] = []
    for outcome in Outcome:
        some = [one for one in trials if one.outcome is outcome]
        for samples in sorted({one.samples for one in some}, reverse=True):
            ordered += _by_results([one for one in some if one.samples == samples], objectives)
    return ordered


def _by_results(trials: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    measured = {one.number: one for one in trials if one.results}
    order = rank_of({k: objectives.smaller_is_better(one.results) for k, one in measured.items()})
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
        raise ValueError(f"all {len(trials)} trials of sweep {study_name} failed{reason}")
    return SweepResult(
        best=best, trials=trials, study_name=study_name, storage=storage, folder=folder
    )


def write_report(result: SweepResult, settings: SweepSettings) -> None:
    """Write table, figure and records into the folder of a sweep.

    Args:
        result: What the sweep found.
        settings: The sweep.
    """
    write_text(result.folder / TABLE, table(result, settings))
    save_png(figure(result, settings), result.folder / FIGURE)
    write_json(result.folder / "trials.json", [_plain(trial) for trial in result.trials])


def table(result: SweepResult, settings: SweepSettings) -> str:
    """The trials from best to worst, as Markdown.

    Args:
        result: What the sweep found.
        settings: The sweep.
    """
    keys = list(settings.space.dimensions)
    rows = [["trial", *keys, *map(str, settings.objectives.all), "samples", "outcome"]]
    for trial in ranked(result.trials, settings.objectives):
        values = [_shown(trial.values[key]) if key in trial.values else "-" for key in keys]
        numbers = [str(one) for one in trial.results] or ["-"] * len(settings.objectives.all)
        rows.append(
            [
                str(trial.number),
                *values,
                *numbers,
                str(trial.samples) if trial.samples else "-",
                ": ".join(filter(None, [str(trial.outcome), trial.reason])),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join(
        [
            f"Sweep {result.study_name}: {_wanted(settings)}, with intervals at 95 %",
            "",
            *lines,
            "",
            "The best trial, again:",
            "",
            f"    {result.command}",
            "",
        ]
    )


def figure(result: SweepResult, settings: SweepSettings) -> Figure:
    """The first objective against each swept key, with intervals.

    Args:
        result: What the sweep found.
        settings: The sweep.
    """
    shown = [trial for trial in result.trials if trial.results]
    keys = list(settings.space.dimensions)
    picture = Figure(figsize=(3.4 * len(keys) + 0.6, 3.0), layout="constrained")
    panels = picture.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    for axis, key in zip(panels, keys, strict=True):
        kind = settings.space.dimensions[key].kind
        having = [trial for trial in shown if key in trial.values]
        for outcome, colour in ((Outcome.FINISHED, "tab:blue"), (Outcome.STOPPED, "0.6")):
            some = [one for one in having if one.outcome is outcome]
            if some:
                numbers = [one.results[0] for one in some]
                axis.errorbar(
                    [_position(one.values[key], kind) for one in some],
                    [one.value for one in numbers],
                    yerr=[
                        [max(0.0, one.value - one.low) for one in numbers],
                        [max(0.0, one.high - one.value) for one in numbers],
                    ],
                    fmt="o",
                    color=colour,
                    label=str(outcome),
                )
        if kind.is_log:
            axis.set_xscale("log")
        axis.set_xlabel(key, fontsize=8)
    panels[0].set_ylabel(str(settings.objectives.lead), fontsize=8)
    panels[0].legend(fontsize=7)
    return picture


def _wanted(settings: SweepSettings) -> str:
    return ", ".join(
        f"{one} ({'smaller' if one.mode is Mode.MIN else 'larger'} is better)"
        for one in settings.objectives.all
    )


def _position(value: object, kind: Kind) -> float | str:
    return str(value) if kind is Kind.CHOICE or not isinstance(value, int | float) else value


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(trial: TrialRecord) -> dict[str, object]:
    return {**asdict(trial), "outcome": str(trial.outcome)}
