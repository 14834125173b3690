"""The page of the recorded sweep and its picture, made from the stored results alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onestep.benchmarks.fair_stopping_page import DOCS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "recorded_sweep.md"
PICTURE: Final = DOCS / "images" / "recorded_sweep.png"
FAIR: Final = "#0072b2"
COLOURS: Final = {"fair": FAIR, "naive asha": "#d55e00", "naive hyperband": "#e69f00"}
GREY: Final = "#bbbbbb"
Curves = Sequence[Sequence[float]]
Points = Sequence[Sequence[float]]
HEAD: Final = """# Early stopping on recorded trials

Written by `python benchmarks/recorded_sweep.py` from
[benchmarks/results/recorded_sweep.json](../benchmarks/results/recorded_sweep.json).

Here [fair early stopping](fair_stopping.md) is judged on real trials: {trials} random points of
the shipped sweep `alpha_flow_curriculum` on digits, with a network of 0.2 M parameters and {whole}
samples, each trained at every rung of three ladders ({rungs} and {whole} samples), every rung a
run planned on its samples. The whole runs are also looked at on their way, as a rule without such
plans would do, and measured once more from other noise. The decisions of the platform, those of
`onestep.sweeps.halving` and `onestep.sweeps.stopping`, are then replayed on these numbers in
{orders} random orders of arrival. Quality is `eval/frechet_features` at 1 NFE; smaller is better.

![Curves, regret against compute, and a front](images/recorded_sweep.png)

*Left*: every trial at every rung; blue the trial that is best in the end. *Middle*: what the
winner of a rule is worse than the best, against the processor time of the training; numbers are
reductions, the band is the interval of the best, the line as many whole trials as the time pays
for, chosen at random. *Right*: quality and cost of trials that differ in the size of their
network, too; blue those that one replay has trained on the whole budget.

"""
PARTS: Final = """
*Of*: of how many one goes on. *Inside*: share of the orders in which the winner lies within the
interval at 95 % of the trial that is best on the whole budget; *again*: by the second measurement
of both. *Best*: share of the orders in which it is this very trial. *Regret*: by how much the
winner is worse, on the average. *Samples*, *training*, *all*: compute, over that of every trial on
the whole budget, in samples, in processor time of the training, and with that of measuring each
run, {measuring:.1f} s where a whole training takes {training:.1f} s. *By chance*: share inside if
as many whole trials as the training pays for are drawn at random.

"""
SEEN: Final = """## What a rung tells of the end

Rank correlation, over all trials, of what is seen at a rung with what the whole budget gives: of
runs planned on the rung, and of whole runs on their way. Of runs on their way the platform says:
*{refusal}*

"""
NOISE: Final = """
## What is noise

The best of {trials} measured values is partly the luckiest one. Half an interval is {interval:.1%}
of a value in the median, the values range from {least:.3g} over {middle:.3g} to {most:.3g}; two
measurements of the whole runs from different noise put them in orders that correlate by
{noise:.3f}. The best, trial {winner}, has {value:.4g} ({low:.4g} to {high:.4g}), {inside} trials
lie within, and it is in place {again} by the second noise with {other:.4g} ({other_low:.4g} to
{other_high:.4g}). Trained from three seeds each, the {count} best have these means and standard
deviations:

"""
FRONTS: Final = """
## Two objectives

The same space with `net.width` from 32 to 256 and `net.depth` from 1 to 4 among its keys, {trials}
random trials at the rungs of the ladder of {reduction}, judged by quality and `cost/training_s`
together: on the whole budget the two correlate by {conflict:.2f}, and {front} trials make the
front. Hypervolume is over that of all trials on the whole budget, {orders} orders. The reference
lies a tenth of the range of all trials beyond the worst, as where the platform ranks, or,
*strictly*, a tenth of the range of the front beyond its own worst values. *By chance*: as many
whole trials, drawn at random, as the same time pays for.

"""
MACHINE: Final = """
The {runs} runs of training took {hours:.1f} hours of processor time, on {cpu} with {cores} cores
that were shared with others, so that seconds are inflated by what a shared core takes more. Shares
of them are less so. The measurements do not depend on it.
"""


def page(stored: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        stored: The results.
    """
    *rungs, whole = (f"{budget:,}" for budget in stored["budgets"])
    first, second, best = stored["noise"]["value"], stored["noise"]["other_noise"], stored["noise"]
    least, middle, most = best["range"]
    session = stored["records"]["curricula"]["sessions"][0]["machine"]
    parts = [
        HEAD.format(
            trials=stored["trials"],
            orders=stored["orders"]["one"],
            rungs=", ".join(rungs),
            whole=whole,
        ),
        _rules(stored["rules"], stored["fewer"]["inside"]),
        PARTS.format(**stored["took"]),
        SEEN.format(refusal=stored["refusal"].partition(": ")[0]),
        _agreement(stored["agreement"]),
        NOISE.format(
            trials=stored["trials"],
            interval=best["interval"],
            least=least,
            middle=middle,
            most=most,
            noise=best["noise"],
            winner=best["winner"],
            value=first[0],
            low=first[1],
            high=first[2],
            inside=best["inside"],
            again=best["place_again"],
            other=second[0],
            other_low=second[1],
            other_high=second[2],
            count=len(best["seeds"]),
        ),
        _seeds(best["seeds"]),
        FRONTS.format(
            trials=stored["trials"],
            reduction=stored["fronts"][0]["reduction"],
            conflict=stored["conflict"]["correlation"],
            front=stored["conflict"]["front"],
            orders=stored["orders"]["front"],
        ),
        _fronts(stored["fronts"]),
        MACHINE.format(**stored["took"], cpu=session["cpu"], cores=session["cores"]),
    ]
    return "".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    under = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"{markdown_row(row)}\n" for row in (head, under, *rows))


def _rules(rules: Sequence[Mapping[str, Any]], inside: Sequence[float]) -> str:
    head = ["rule", "of", "at once", "inside", "again", "best", "regret"]
    head += ["samples", "training", "all", "by chance"]
    rows = []
    for row in rules:
        by = "" if row["number"] == "quality" else f", by {row['number']}"
        paid = round(row["cost"]["training_s"] * len(inside))
        rows.append(
            [
                f"{row['rule']}{by}",
                str(row["reduction"]),
                str(row["at_once"]),
                *(f"{row[name]:.1%}" for name in ("inside", "inside_again", "is_best")),
                f"{row['regret']:.3f}",
                *(f"{row['cost'][name]:.1%}" for name in ("samples", "training_s", "seconds")),
                f"{inside[paid - 1]:.1%}",
            ]
        )
    return _table(head, rows)


def _agreement(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rungs = list(found["quality"]["planned"])
    rows = []
    for number, kinds in found.items():
        for kind, at in kinds.items():
            cells = [f"{at[rung]:.2f}" if rung in at else "" for rung in rungs]
            rows.append([f"{number}, {kind.replace('_', ' ')}", *cells])
    return _table(["number", *(f"{int(rung):,}" for rung in rungs)], rows)


def _seeds(seeds: Mapping[str, Sequence[float]]) -> str:
    cells = [f"{mean:.2f} ({spread:.2f})" for mean, spread in seeds.values()]
    return _table(["trial", *seeds], [["mean (deviation)", *cells]])


def _fronts(fronts: Sequence[Mapping[str, Any]]) -> str:
    head = ["at once", "hypervolume", "5 % of orders below", "by chance"]
    head += ["strictly", "5 % of orders below", "by chance", "samples", "training", "all"]
    rows = []
    for row in fronts:
        names = ["volume", "volume_low", "volume_of_fewer"]
        names += ["volume_strict", "volume_strict_low", "volume_strict_of_fewer"]
        costs = [f"{row['cost'][name]:.1%}" for name in ("samples", "training_s", "seconds")]
        rows.append([str(row["at_once"]), *(f"{row[name]:.1%}" for name in names), *costs])
    return _table(head, rows)


def picture(stored: Mapping[str, Any], curves: Curves, points: Points) -> Figure:
    """Recorded curves, regret against compute, and the front of quality and cost.

    Args:
        stored: The results.
        curves: Quality of each trial at the rungs.
        points: Quality and cost of each trial of the other space on the whole budget.
    """
    figure = Figure(figsize=(10.5, 3.5))
    figure.set_layout_engine("constrained")
    left, middle, right = figure.subplots(1, 3)
    _curves(left, stored, curves)
    _regrets(middle, stored)
    _front(right, stored, points)
    for axis in (left, middle, right):
        axis.tick_params(labelsize=8)
    return figure


def _curves(axis: Axes, stored: Mapping[str, Any], curves: Curves) -> None:
    axis.set_title("every trial at every rung", fontsize=10)
    best = stored["noise"]["winner"]
    for number, curve in enumerate(curves):
        if number != best:
            axis.plot(stored["budgets"], curve, color=GREY, linewidth=0.6)
    axis.plot(stored["budgets"], curves[best], "o-", color=FAIR, linewidth=1.6, markersize=3.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("samples on which a run is planned", fontsize=9)
    axis.set_ylabel("quality: Frechet distance at 1 NFE", fontsize=9)


def _regrets(axis: Axes, stored: Mapping[str, Any]) -> None:
    axis.set_title("how much worse the winner is", fontsize=10)
    value, _, high = stored["noise"]["value"]
    regret = stored["fewer"]["regret"]
    shares = [(k + 1) / len(regret) for k in range(len(regret))]
    axis.plot(shares, regret, color="#666666", linewidth=1.0, label="fewer trials, by chance")
    axis.axhspan(0.0, high - value, color="#dddddd", zorder=0)
    for name, colour in COLOURS.items():
        rows = [
            row
            for row in stored["rules"]
            if (row["rule"], row["number"], row["at_once"]) == (name, "quality", 1)
        ]
        x = [row["cost"]["training_s"] for row in rows]
        y = [row["regret"] for row in rows]
        axis.plot(x, y, "o", color=colour, markersize=5, label=name)
        for row, at in zip(rows, zip(x, y, strict=True), strict=True):
            axis.annotate(
                str(row["reduction"]), at, xytext=(4, 4), textcoords="offset points", fontsize=8
            )
    axis.set_xlim(0.0, 1.0)
    axis.set_ylim(-0.3, max(regret[4], 3 * (high - value)))
    axis.set_xlabel("training, over that of all whole runs", fontsize=9)
    axis.set_ylabel("regret", fontsize=9)
    axis.legend(fontsize=7, frameon=False)


def _front(axis: Axes, stored: Mapping[str, Any], points: Points) -> None:
    axis.set_title("two objectives", fontsize=10)
    found = stored["fronts"][0]["found"]
    rest = [point for number, point in enumerate(points) if number not in found]
    for chosen, colour, label in (
        (rest, GREY, "stopped early"),
        ([points[number] for number in found], FAIR, "had the whole budget"),
    ):
        quality, cost = zip(*chosen, strict=True)
        axis.plot(cost, quality, "o", color=colour, markersize=4, label=label)
    best = sorted(points, key=lambda point: (point[1], point[0]))
    front = [p for k, p in enumerate(best) if all(p[0] < other[0] for other in best[:k])]
    axis.step([p[1] for p in front], [p[0] for p in front], where="post", color="#333333", lw=0.8)
    axis.set_yscale("log")
    axis.set_xlabel("cost: seconds of training", fontsize=9)
    axis.set_ylabel("quality", fontsize=9)
    axis.legend(fontsize=7, frameon=False)
