"""Several reports as one table: models and trivial baselines under the same yardstick."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Final, final

from .report import Measurement, Report

HEADLINES: Final = (
    "eval/1nn_accuracy",
    "eval/1nn_deviation",
    "eval/frechet_features",
    "eval/sliced_w2",
    "eval/coverage",
    "eval/class_agreement",
    "eval/memorisation_ratio",
    "eval/mode_mass_tv",
    "eval/outside_modes",
    "eval/forbidden_share",
)
"""Metrics of the short table, where a report has them."""


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one model.

    Attributes:
        model: Name of the model.
        data: Name of the set.
        nfe: Evaluations of the map for one sample; None for a property of the map itself.
        sampler: How the samples were made.
        metric: Name of the metric.
        value: The number.
        low: Lower end of its interval.
        high: Upper end of its interval.
        floor: The same for training data against held-out data, or for an exact map, or None.
        gaussian: The same for one Gaussian per class, or for the whole set, or None.
        training_data: The same for resampled training data, or None.
        count: Samples of a draw.
        draws: Draws that were averaged.
        features: Feature space that the report rests on.
        ema: Which weights of the model were used.
        seed: Seed of the evaluation.
        data_digest: sha256 of the set.
        guidance: Guidance scale of a model that takes one, or None.
    """

    model: str
    data: str
    nfe: int | None
    sampler: str
    metric: str
    value: float
    low: float
    high: float
    floor: float | None
    gaussian: float | None
    training_data: float | None
    count: int
    draws: int
    features: str
    ema: str
    seed: int
    data_digest: str
    guidance: float | None


def check_comparable(reports: Sequence[Report]) -> None:
    """Refuse reports whose numbers mean different things.

    Args:
        reports: Reports of several models.

    Raises:
        ValueError: If there are none, or they differ in data, feature space, counts or seed.
    """
    if not reports:
        raise ValueError("a comparison needs at least one report, got none")
    yardsticks = {
        (p.data, p.data_digest[:12], p.features[:19], p.count, p.draws, p.seed)
        for p in (report.provenance for report in reports)
    }
    if len(yardsticks) > 1:
        raise ValueError(
            "reports can be compared on the same data, features, counts and seed only, "
            f"got {sorted(yardsticks)}"
        )


def rows(reports: Sequence[Report]) -> list[Row]:
    """Every number of every report, with its provenance, one a row.

    Args:
        reports: Reports of several models.
    """
    return [_row(report, m) for report in reports for m in report.measurements]


def _row(report: Report, m: Measurement) -> Row:
    p = report.provenance
    return Row(
        model=p.model,
        data=p.data,
        nfe=m.nfe,
        sampler=m.sampler,
        metric=m.name,
        value=m.value,
        low=m.interval[0],
        high=m.interval[1],
        floor=m.floor,
        gaussian=m.baselines.get("gaussian"),
        training_data=m.baselines.get("training_data"),
        count=m.count,
        draws=m.draws,
        features=p.features,
        ema=p.ema,
        seed=p.seed,
        data_digest=p.data_digest,
        guidance=p.guidance,
    )


def to_csv(reports: Sequence[Report]) -> str:
    """All rows as CSV with a header.

    Args:
        reports: Reports of several models.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([f.name for f in fields(Row)])
    writer.writerows(astuple(row) for row in rows(reports))
    return stream.getvalue()


def _headlines(reports: Sequence[Report]) -> list[str]:
    present = {m.name for report in reports for m in report.measurements}
    return [name for name in HEADLINES if name in present]


def markdown_row(cells: Sequence[str]) -> str:
    """One row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def to_markdown(reports: Sequence[Report], *, metrics: Sequence[str] = ()) -> str:
    """A table with a line for each model and number of evaluations, and lines to judge them by.

    Args:
        reports: Reports of several models, on the same yardstick.
        metrics: Metrics to show; the headlines by default.

    Returns:
        Markdown; below the table stands what the numbers rest on.
    """
    check_comparable(reports)
    names = list(metrics) or _headlines(reports)
    lines = [
        markdown_row(["model", "NFE", "sampler", *(name.split("/")[-1] for name in names)]),
        markdown_row(["---", "--:", "---", *("--:" for _ in names)]),
    ]
    for report in reports:
        samplings = {(m.nfe, m.sampler): None for m in report.measurements if m.sampler}
        for nfe, sampler in samplings:
            found = {m.name: m for m in report.measurements if m.sampler == sampler}
            cells = [_cell(found.get(name)) for name in names]
            lines.append(
                markdown_row(
                    [report.provenance.title, str(nfe or ""), sampler.split("(")[0], *cells]
                )
            )
    known = {m.name: m for report in reports for m in report.measurements if m.baselines}
    p = reports[0].provenance
    for label, kind in (
        ("training data, fresh (floor)", None),
        (p.gaussian, "gaussian"),
        ("training data, resampled", "training_data"),
    ):
        cells = [
            ""
            if name not in known
            else _number(known[name].floor if kind is None else known[name].baselines.get(kind))
            for name in names
        ]
        lines.append(markdown_row([f"*{label}*", "", "", *cells]))
    accuracy = "" if p.classifier_accuracy is None else f" ({p.classifier_accuracy:.1%} held out)"
    lines += [
        "",
        f"{p.data} `{p.data_digest[:12]}`, {p.draws} draws of {p.count} samples against held-out "
        f"data; features `{p.features[:19]}`{accuracy}; in brackets 95 % intervals over draws. The "
        "nearer a number is to the floor, the better.",
    ]
    return "\n".join(lines) + "\n"


def _cell(m: Measurement | None) -> str:
    if m is None:
        return ""
    return f"{m.value:.3f} [{m.interval[0]:.3f}, {m.interval[1]:.3f}]"
