"""Two sections of the page of a sweep: what was tried after training, and the Pareto set of all."""

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..platform.evaluation.figures import COLOURS, INK, png_of, style
from .findings import Findings
from .markup import Html, joined, picture, table, tag
from .objective import Number, Objective
from .pareto import Point, pareto_set, points_of
from .posthoc_setting import AS_TRAINED
from .subtrial import SubTrial

_LOG_FROM: Final = 20.0
"""Ratio of the largest time to the least from which the axis is logarithmic."""
_SHOWN: Final = 30
"""Rows of the set that are shown; the picture has all of it."""


def after_training(findings: Findings) -> list[Html]:
    """What was tried on the weights of each trial; nothing where a sweep tries nothing.

    Args:
        findings: What is known of the sweep.
    """
    if findings.settings.posthoc is None:
        return []
    rows = [
        _row(trial.number, one, is_chosen=one.place == trial.chosen)
        for trial in findings.measured
        for one in findings.subtrials(trial)
    ]
    if not rows:
        return [tag("p", "Nothing has been tried on a trained trial yet.")]
    lead = findings.objectives.lead
    told = (
        "Each trial is used in these ways without being trained again. The way is chosen by "
        f"{lead} on held-out data and noise that trials are not judged by, and judged on those: "
        "the second number, not the first, is what the trial is worth."
    )
    head = [
        "trial",
        "setting",
        joined(str(lead), tag("br"), tag("small", "chosen by")),
        joined(str(lead), tag("br"), tag("small", "judged by")),
        "seconds",
        "",
    ]
    return [tag("p", told), table(head, rows)]


def pareto_section(findings: Findings) -> list[Html]:
    """The Pareto set over quality, evaluations, cost and latency, of all trials and sub-trials.

    Args:
        findings: What is known of the sweep.
    """
    quality = findings.objectives.quality
    points = points_of(findings)
    if quality is None or not points:
        return [tag("p", "No whole training has been measured on samples yet.")]
    best = pareto_set(points, sign=quality.sign)
    is_timed = all(one.latency is not None for one in points)
    axes = "network evaluations, processor seconds of the training" + (
        " and milliseconds for a sample" if is_timed else ""
    )
    timing = findings.settings.latency
    told = (
        f"Each of the {len(points)} points is a trial in one of its ways at one number of network "
        f"evaluations; {len(best)} are beaten by none in {quality.name}, {axes}. Times count to "
        "two digits. A sampler that is named counts at its own number of evaluations, and the "
        "map's own at others. The set is picked by these very numbers, so that the best are "
        "somewhat too good."
    )
    if is_timed:
        told += (
            f" A time for a sample is the median of {timing.repeats} batches of "
            f"{timing.batch_size}, taken where the trial was trained, at "
            f"sweep.concurrency={findings.settings.concurrency}."
        )
    head = ["trial", "setting", "NFE", quality.name, "training, s", "sample, ms"]
    rows = [
        [
            str(one.trial),
            one.said,
            str(one.nfe),
            _number(one.quality),
            f"{one.training_s:.3g}",
            "-" if one.latency is None else _number(one.latency),
        ]
        for one in best[:_SHOWN]
    ]
    parts = [tag("p", told), _pictures(points, best, quality, is_timed=is_timed)]
    parts.append(table(head, rows))
    if len(best) > _SHOWN:
        parts.append(tag("p", f"{len(best) - _SHOWN} more are in the picture alone."))
    return parts


def _pictures(
    points: Sequence[Point], best: Sequence[Point], quality: Objective, *, is_timed: bool
) -> Html:
    figures = [
        picture(
            png_of(_chart(points, best, quality, "training_s", "processor seconds of training")),
            told=f"{quality.name} against the cost of the training, for each number of evaluations",
            caption="The Pareto set is ringed.",
        )
    ]
    if is_timed:
        figures.insert(
            0,
            picture(
                png_of(_chart(points, best, quality, "latency", "milliseconds for a sample")),
                told=f"{quality.name} against latency, for each number of network evaluations",
                caption="The Pareto set is ringed.",
            ),
        )
    return tag("div", *figures, class_="flow")


def _chart(
    points: Sequence[Point], best: Sequence[Point], quality: Objective, across: str, label: str
) -> Figure:
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axis = figure.subplots()
    style(axis)

    def where(one: Point) -> float:
        if across == "training_s":
            return one.training_s
        assert one.latency is not None
        return one.latency.value

    for place, nfe in enumerate(sorted({one.nfe for one in points})):
        some = [one for one in points if one.nfe == nfe]
        for is_sub in (False, True):
            drawn = [one for one in some if (one.said != AS_TRAINED) is is_sub]
            axis.plot(
                [where(one) for one in drawn],
                [one.quality.value for one in drawn],
                color=COLOURS[place % len(COLOURS)],
                marker="." if is_sub else "o",
                lw=0.0,
                alpha=0.8,
                label=None if is_sub else f"{nfe} NFE",
            )
    axis.plot(
        [where(one) for one in best],
        [one.quality.value for one in best],
        color=INK,
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgewidth=0.8,
        lw=0.0,
        zorder=0,
    )
    places = [where(one) for one in points]
    if min(places) > 0.0 and max(places) / min(places) > _LOG_FROM:
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label, fontsize=8.5, color=INK)
    axis.set_ylabel(f"{quality.name} ({quality.mode})", fontsize=8.5, color=INK)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _row(trial: int, one: SubTrial, *, is_chosen: bool) -> list[str]:
    if one.error:
        return [str(trial), one.said, "-", "-", f"{one.seconds:.3g}", one.error]
    return [
        str(trial),
        one.said,
        f"{one.tuned[0].value:.4g}",
        _number(one.judged[0]),
        f"{one.seconds:.3g}",
        "chosen" if is_chosen else "",
    ]


def _number(number: Number) -> Html:
    if number.low == number.high:
        return joined(f"{number.value:.4g}")
    return joined(f"{number.value:.4g} ", tag("small", f"({number.low:.4g} to {number.high:.4g})"))
