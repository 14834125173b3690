"""What a sweep found: a table of its trials, the best one's command line, and a figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

from matplotlib.figure import Figure

from ..platform.atomic import write_json, write_text
from ..platform.evaluation.figures import save_png
from .dimension import Kind
from .journal import number_of
from .record import Outcome, TrialRecord, command_line
from .settings import Mode, SweepSettings

TABLE: Final = "table.md"
FIGURE: Final = "metric.png"


@final
@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        best_overrides: Overrides that repeat the best trial, without the passwords of stores.
        best_value: Its metric.
        trials: All trials that ended, by number.
        study_name: Name of the sweep and of its Optuna study.
        storage: URL of Optuna's database.
        folder: Where table, figure and reports are.
    """

    best_overrides: tuple[str, ...]
    best_value: float
    trials: tuple[TrialRecord, ...]
    study_name: str
    storage: str
    folder: Path

    @property
    def command(self) -> str:
        """The shell line that repeats the best trial."""
        return command_line(self.best_overrides)


def ranked(trials: Sequence[TrialRecord], mode: Mode) -> list[TrialRecord]:
    """Trials from best to worst: whole ones, then those stopped early, then failed ones.

    Args:
        trials: The trials.
        mode: Which values are better.
    """
    order = list(Outcome)
    sign = 1.0 if mode is Mode.MIN else -1.0

    def key(trial: TrialRecord) -> tuple[int, float, int]:
        value = 0.0 if trial.value is None else sign * trial.value
        return order.index(trial.outcome), value, trial.number

    return sorted(trials, key=key)


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
    best = next(iter(ranked(trials, settings.metric.mode)), None)
    if best is None or best.value is None:
        reason = "" if best is None else f", the first with {best.error}"
        raise ValueError(f"all {len(trials)} trials of sweep {study_name} failed{reason}")
    return SweepResult(
        best_overrides=best.overrides,
        best_value=best.value,
        trials=trials,
        study_name=study_name,
        storage=storage,
        folder=folder,
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
    rows = [["trial", *keys, f"{settings.metric} (95 %)", "samples", "outcome"]]
    for trial in ranked(result.trials, settings.metric.mode):
        values = [_shown(trial.values[key]) if key in trial.values else "-" for key in keys]
        rows.append(
            [
                str(trial.number),
                *values,
                number_of(trial),
                str(trial.samples) if trial.samples else "-",
                trial.error or str(trial.outcome),
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
            f"Sweep {result.study_name}: {settings.metric}, "
            f"{'smaller' if settings.metric.mode is Mode.MIN else 'larger'} is better",
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
    """The metric against each swept key, with intervals.

    Args:
        result: What the sweep found.
        settings: The sweep.
    """
    shown = [trial for trial in result.trials if trial.value is not None]
    keys = list(settings.space.dimensions)
    picture = Figure(figsize=(3.4 * len(keys) + 0.6, 3.0), layout="constrained")
    panels = picture.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    for axis, key in zip(panels, keys, strict=True):
        kind = settings.space.dimensions[key].kind
        having = [trial for trial in shown if key in trial.values]
        for outcome, colour in ((Outcome.FINISHED, "tab:blue"), (Outcome.STOPPED, "0.6")):
            some = [trial for trial in having if trial.outcome is outcome]
            if some:
                axis.errorbar(
                    [_position(trial.values[key], kind) for trial in some],
                    [trial.value or 0.0 for trial in some],
                    yerr=_bars(some),
                    fmt="o",
                    color=colour,
                    label=str(outcome),
                )
        if kind.is_log:
            axis.set_xscale("log")
        axis.set_xlabel(key, fontsize=8)
    panels[0].set_ylabel(str(settings.metric), fontsize=8)
    panels[0].legend(fontsize=7)
    return picture


def _bars(trials: Sequence[TrialRecord]) -> list[list[float]]:
    below, above = [], []
    for trial in trials:
        value = trial.value or 0.0
        low, high = trial.interval or (value, value)
        below.append(max(0.0, value - low))
        above.append(max(0.0, high - value))
    return [below, above]


def _position(value: object, kind: Kind) -> float | str:
    return str(value) if kind is Kind.CHOICE or not isinstance(value, int | float) else value


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(trial: TrialRecord) -> dict[str, object]:
    return {**asdict(trial), "outcome": str(trial.outcome)}
