"""The page of the recorded sweep and its picture, made from the stored results alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onestep.benchmarks.record import DOCS
from onestep.benchmarks.sweep_record import BEST, FRESH_SEEDS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "recorded_sweep.md"
PICTURE: Final = DOCS / "images" / "recorded_sweep.png"
FAIR: Final = "#0072b2"
COLOURS: Final = {"fair": FAIR, "naive asha": "#d55e00", "naive hyperband": "#e69f00"}
GREY: Final = "#bbbbbb"
LEVELS: Final = (2, 3, 5, 10, 20)
"""Where an axis of quality has numbers."""
CHANCES: Final = (0.2, 0.4)
"""Shares of the compute for which the best of as many whole trials is told."""
COUNTED: Final = {"curricula": ("training_s", "inside_fresh"), "sizes": ("samples", "inside")}
"""By record: the compute and the share of the orders that are judged.

Of networks of several sizes the large ones go on, so that halving saves less time than samples.
"""
NAMES: Final = {
    "inside": "inside",
    "volume": "hypervolume",
    "training_s": "training",
    "samples": "samples",
}
"""What a bar is about, as the page calls it."""
Curves = Sequence[Sequence[float]]
Points = Sequence[Sequence[float]]
HEAD: Final = """# Early stopping on recorded trials

Written by `python benchmarks/recorded_sweep.py` from
[benchmarks/results/recorded_sweep.json](../benchmarks/results/recorded_sweep.json) and the records
in [benchmarks/results/recorded_sweep](../benchmarks/results/recorded_sweep).

Here [fair early stopping](fair_stopping.md) is judged on real trials: {trials} random points of
the shipped sweep `alpha_flow_curriculum` on digits, with a small network, each trained on {rungs}
and {whole} samples, every rung a run planned on its samples. The whole runs are also looked at on
their way, as a rule without such plans would do, and measured once more from other noise. The
decisions of the platform, those of `onestep.sweeps.halving` and `onestep.sweeps.stopping`, are
then replayed on these numbers in {orders} random orders of arrival. Quality is
`eval/frechet_features` at 1 NFE; smaller is better. The fair
rule is asha with `replan`.

![Curves, regret against compute, and a front](images/recorded_sweep.png)

*Left*: every trial at every rung; blue the trial that is best in the end. *Middle*: what the
winner of a rule is worse than the best, against the processor time of the training; numbers are
reductions, the band is the interval of the best, the line as many whole trials as the time pays
for, chosen at random. *Right*: quality and cost of trials that differ in the size of their
network, too; blue those that one replay has trained on the whole budget.

"""
PARTS: Final = """
*Of*: of how many one goes on. *Filled*: nobody goes on before the others of a rung are known
(`sweep.scheduler.fill`). *Inside*: share of the orders in which the winner is as good as the
trial that is best on the whole budget: its mean over {seeds} trainings from fresh seeds lies within
the interval at 95 % of that trial's, or is better; no trial beyond the best {best} is taken for as
good. *By one training*: the same by the one training of the sweep, and its interval over fresh
samples alone. *Best*: share of the orders in which it is this very trial. *Regret*: by how much the
winner is worse, on the average, over fresh seeds where they are known and by the one training.
*Samples*, *training*, *all*: compute, over that of every trial on the whole budget, in samples, in
processor time of the training, and with that of measuring each run: {measuring:.2f} s where a whole
training takes {training:.1f} s, and {comparing:.2f} s for the numbers alone by which the runs of a
rung are compared. Of the records but *curricula* all numbers of every run were measured, which a
sweep does of whole runs alone: their *all* is higher than that of a sweep.

"""
BARS: Final = """## What is asked, and what is found

Of the fair rule: a winner as good as the best, or as much hypervolume, for {most} of the compute of
every trial on the whole budget. What counts as compute is training alone: its processor time, or
its samples where the large networks go on. *By chance*: what as many whole trials, drawn at random,
find for the same training. *With measuring*: the share of the processor time when measuring each
run counts, too; {over} of the {rows} that are told lie above {most}.

"""
POWER: Final = """
Good curricula of this space differ by less than seeds do: halving finds one as good as the best in
{curricula} of the orders, and so does, in {curricula_by_chance}, who trains {share} of the trials
whole, chosen at random. What halving can do shows where trials differ, in the record *sizes*
(below) by quality alone: it finds the best in {sizes} of the orders, chance in {sizes_by_chance}.
There the large networks go on, so that it saves samples more than time.

"""
SEEN: Final = """## What a rung tells of the end

Rank correlation, over all trials, of what is seen at a rung with what the whole budget gives: of
runs planned on the rung, and of whole runs on their way. Of these the platform says: *{refusal}*.
Here {first} samples tell enough of {whole}. That is not so everywhere, and fair rungs do not
mend it: in a record of {short} trials of 65,536 samples, runs of less than 16,000 put trials in an
order that has nothing to do with that of the whole, or turns it round, and halving that begins
there finds a wrong winner: `sweep.scheduler.grace_samples` has to lie above. A third record, of
{slow} trials, has the default learning rate, with which 65,536 samples teach less than 7,168 with
the other, and no rung but the last before the whole tells anything. `eval/1nn_deviation` falls,
rises and falls again as models learn, so that short runs tell little by it.

"""
NOISE: Final = """
## What is noise

The best of {trials} measured values is partly the luckiest one. Half an interval is {interval:.1%}
of a value in the median, the values range from {least:.3g} over {middle:.3g} to {most:.3g}; two
measurements of the whole runs from different noise put them in orders that correlate by
{noise:.3f}: all trials are measured from the same noise, so that they compare better than their
intervals say. The best, trial {winner}, has {value:.4g} ({low:.4g} to {high:.4g}), {inside} trials
within, and it is in place {again} by the second noise with {other:.4g} ({other_low:.4g} to
{other_high:.4g}).

What one training comes to is not what another from another seed does, and this is the larger part.
The best trials, trained again from {seeds} fresh seeds each, which had no part in choosing them:
the mean and half its interval, with the deviation of all of them together. {inside_fresh} lie
within the interval of trial {winner}, or below.

"""
FRONTS: Final = """
## Two objectives

The same space with `net.width` from 32 to 256 and `net.depth` from 1 to 4 among its keys, {trials}
random trials at the rungs of the ladders of {reductions}, judged by quality and
`cost/training_s` together: on the whole budget of {whole} samples the two correlate by
{conflict:.2f}, and {front} trials make the front. Hypervolume is over that of all trials on the
whole budget, {orders} orders. The reference lies a tenth of the range of all trials beyond the
worst, as where the platform ranks, or, *strictly*, a tenth of the range of the front beyond its own
worst values. *By chance*: as many whole trials, drawn at random, as the same time pays for.

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
    best, records = stored["noise"], stored["records"]
    least, middle, most = best["range"]
    (value, low, high), (other, other_low, other_high) = best["value"], best["other_noise"]
    session = records["sizes"]["sessions"][0]["machine"]
    parts = [
        HEAD.format(
            trials=records["curricula"]["trials"],
            orders=stored["orders"]["one"],
            rungs=", ".join(rungs),
            whole=whole,
        ),
        _rules(stored),
        PARTS.format(**stored["took"], seeds=len(FRESH_SEEDS), best=BEST),
        BARS.format(**_over(stored["bars"])),
        _bars(stored["bars"]),
        POWER.format(**_power(stored)),
        SEEN.format(
            refusal=stored["refusal"].partition(": ")[0],
            first=rungs[0],
            whole=whole,
            short=records["short_curricula"]["trials"],
            slow=records["slow_curricula"]["trials"],
        ),
        _agreement(stored["agreement"]),
        NOISE.format(
            trials=records["curricula"]["trials"],
            interval=best["interval"],
            least=least,
            middle=middle,
            most=most,
            noise=best["noise"],
            winner=best["winner"],
            value=value,
            low=low,
            high=high,
            inside=best["inside"],
            again=best["place_again"],
            other=other,
            other_low=other_low,
            other_high=other_high,
            seeds=len(FRESH_SEEDS),
            inside_fresh=best["inside_fresh"],
        ),
        _fresh(best["fresh"]),
        FRONTS.format(
            trials=records["sizes"]["trials"],
            reductions=" and ".join(
                dict.fromkeys(str(front["reduction"]) for front in stored["fronts"])
            ),
            whole=f"{stored['fronts'][0]['rungs'][-1]:,}",
            conflict=stored["conflict"]["correlation"],
            front=stored["conflict"]["front"],
            orders=stored["orders"]["front"],
        ),
        _fronts(stored["fronts"]),
        MACHINE.format(**stored["took"], cpu=session["cpu"], cores=session["cores"]),
    ]
    return "".join(parts)


def by_chance(numbers: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """How often chance finds a winner that is as good as the best, for what a rule trains.

    Args:
        numbers: The results.
        row: The rule, on a record that is judged.

    Returns:
        The chance that one of as many trials is, drawn at random and trained whole.
    """
    compute, inside = COUNTED[row["record"]]
    chances: Sequence[float] = numbers["fewer"][row["record"]][inside]
    return chances[int(row["cost"][compute] * len(chances)) - 1]


def _over(bars: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """How many rules take more than is asked when measuring counts, too."""
    found = [(one["with_measuring"], one["bar"]) for one in bars if "with_measuring" in one]
    most = float(found[0][1].removeprefix("<= "))
    return {
        "most": f"{most:.0%}",
        "rows": len(found),
        "over": sum(share > most for share, _ in found),
    }


def _bars(bars: Sequence[Mapping[str, Any]]) -> str:
    head = ["record", "filled", "at once", "number", "asked", "found", "by chance"]
    rows = []
    for one in bars:
        if one["number"] in NAMES:
            sign, bar = one["bar"].split()
            rows.append(
                [
                    one["record"],
                    "yes" if one["fill"] else "no",
                    str(one["at_once"]),
                    NAMES[one["number"]],
                    f"{sign} {float(bar):.0%}",
                    *(_share(one.get(key)) for key in ("value", "by_chance", "with_measuring")),
                ]
            )
    return _table([*head, "with measuring"], rows)


def _power(stored: Mapping[str, Any]) -> dict[str, str]:
    """What halving and chance come to where trials differ, and where they hardly do."""
    by_chance = {
        name: each["inside" if name == "sizes" else "inside_fresh"][
            round(CHANCES[0] * len(each["inside"])) - 1
        ]
        for name, each in stored["fewer"].items()
    }
    rows = [row for row in stored["rules"] if row["rule"] == "fair" and row["number"] == "quality"]
    sizes = min(row["inside"] for row in rows if row["record"] == "sizes")
    fresh = min(row["inside_fresh"] for row in rows if row["record"] == "curricula")
    return {
        "share": f"{CHANCES[0]:.0%}",
        "curricula": f"{fresh:.0%}",
        "curricula_by_chance": f"{by_chance['curricula']:.0%}",
        "sizes": f"{sizes:.0%}",
        "sizes_by_chance": f"{by_chance['sizes']:.0%}",
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    under = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"{markdown_row(row)}\n" for row in (head, under, *rows))


def _rules(stored: Mapping[str, Any]) -> str:
    head = ["record", "trials", "rule", "of", "at once", "inside", "by one training", "best"]
    head += ["regret", "by one training", "samples", "training", "all"]
    rows = []
    for row in stored["rules"]:
        by = "" if row["number"] == "quality" else f", by {row['number']}"
        rows.append(
            [
                row["record"].replace("_", " "),
                str(row["trials"]),
                f"{row['rule']}{', filled' * row['fill']}{by}",
                str(row["reduction"]),
                str(row["at_once"]),
                *(_share(row[name]) for name in ("inside_fresh", "inside", "is_best")),
                *(_number(row[name]) for name in ("regret_fresh", "regret")),
                *(_share(row["cost"][name]) for name in ("samples", "training_s", "seconds")),
            ]
        )
    for name, fewer in stored["fewer"].items():
        for share in CHANCES:
            count = round(share * len(fewer["inside"]))
            inside = [_share(fewer[number][count - 1]) for number in ("inside_fresh", "inside")]
            rule = f"{count} whole trials, by chance"
            cells = [name, str(len(fewer["inside"])), rule, "", "", *inside, "", ""]
            rows.append([*cells, _number(fewer["regret"][count - 1]), _share(share), "", ""])
    return _table(head, rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _agreement(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    every = {
        (record, number, kind): at
        for record, numbers in found.items()
        for number, kinds in numbers.items()
        for kind, at in kinds.items()
    }
    rungs = sorted({int(rung) for at in every.values() for rung in at})
    rows = []
    for (record, number, kind), at in every.items():
        cells = [f"{at[str(rung)]:.2f}" if str(rung) in at else "" for rung in rungs]
        name = f"{record.replace('_', ' ')}, {number}, {kind.replace('_', ' ')}"
        rows.append([name, *cells])
    return _table(["", *(f"{rung:,}" for rung in rungs)], rows)


def _fresh(fresh: Mapping[str, Sequence[float]]) -> str:
    rows = [
        [number, f"{once:.2f}", f"{mean:.2f}", f"{half:.2f}"]
        for number, (once, mean, half) in fresh.items()
    ]
    return _table(["trial", "in the sweep", "fresh seeds", "half an interval"], rows)


def _fronts(fronts: Sequence[Mapping[str, Any]]) -> str:
    head = ["of", "filled", "at once", "hypervolume", "5 % of orders below", "by chance"]
    head += ["strictly", "5 % of orders below", "by chance", "samples", "training", "all"]
    rows = []
    for row in fronts:
        names = ["volume", "volume_low", "volume_of_fewer"]
        names += ["volume_strict", "volume_strict_low", "volume_strict_of_fewer"]
        costs = [f"{row['cost'][name]:.1%}" for name in ("samples", "training_s", "seconds")]
        about = [str(row["reduction"]), "yes" if row["fill"] else "no", str(row["at_once"])]
        rows.append([*about, *(f"{row[name]:.1%}" for name in names), *costs])
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
    axis.set_xticks(stored["budgets"], [f"{n / 1000:.0f}k" for n in stored["budgets"]], rotation=45)
    axis.minorticks_off()
    axis.set_yticks(LEVELS, [f"{level:g}" for level in LEVELS])
    axis.set_xlabel("samples on which a run is planned", fontsize=9)
    axis.set_ylabel("quality: Frechet distance at 1 NFE", fontsize=9)


def _regrets(axis: Axes, stored: Mapping[str, Any]) -> None:
    axis.set_title("how much worse the winner is", fontsize=10)
    value, _, high = stored["noise"]["value"]
    regret = stored["fewer"]["curricula"]["regret"]
    shares = [(k + 1) / len(regret) for k in range(len(regret))]
    axis.plot(shares, regret, color="#666666", linewidth=1.0, label="fewer trials, by chance")
    axis.axhspan(0.0, high - value, color="#dddddd", zorder=0)
    worst = max(regret[len(regret) // 8], 3 * (high - value))
    for name, colour in COLOURS.items():
        rows = [
            row
            for row in stored["rules"]
            if (row["record"], row["rule"], row["number"], row["at_once"])
            == ("curricula", name, "quality", 1)
        ]
        worst = max(worst, *(row["regret"] for row in rows))
        x = [row["cost"]["training_s"] for row in rows]
        y = [row["regret"] for row in rows]
        axis.plot(x, y, "o", color=colour, markersize=5, label=name)
        for row, at in zip(rows, zip(x, y, strict=True), strict=True):
            axis.annotate(
                f"{row['reduction']}{' filled' * row['fill']}",
                at,
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
            )
    axis.set_xlim(0.0, 1.0)
    axis.set_ylim(-0.02, 1.2 * worst)
    axis.set_xlabel("training, over that of all whole runs", fontsize=9)
    axis.set_ylabel("regret, by one training", fontsize=9)
    axis.legend(fontsize=7, frameon=False, loc="upper right")


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
    axis.minorticks_off()
    axis.set_yticks(LEVELS[2:], [f"{level:g}" for level in LEVELS[2:]])
    axis.set_xlabel("cost: seconds of training", fontsize=9)
    axis.set_ylabel("quality", fontsize=9)
    axis.legend(fontsize=7, frameon=False)
