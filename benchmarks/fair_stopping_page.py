"""The page of fair early stopping and its picture, made from the stored results alone."""

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onestep.benchmarks.record import DOCS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "fair_stopping.md"
PICTURE: Final = DOCS / "images" / "fair_stopping.png"
FAMILIES: Final = {
    "apart": "*apart*: of different lengths",
    "brief": "*brief*: the same, with rungs that are short",
    "together": "*together*: of one length",
    "none": "*none*",
}
RULES: Final = {
    "full": "*full*: every arm on the whole budget",
    "naive": "*naive*: halving, on the way of whole runs",
    "fair": "*fair*: halving, runs planned on each rung",
}
COLOURS: Final = {"short": "#d55e00", "long": "#0072b2"}
BARS: Final = {"full": "#999999", "naive": "#d55e00", "fair": "#0072b2"}
HEAD: Final = """# Early stopping that is fair to curricula

Written by `python benchmarks/fair_stopping.py` from
[benchmarks/results/fair_stopping.json](../benchmarks/results/fair_stopping.json).

A curriculum counts the share of its run. Successive halving compares runs on their way: after a
tenth of the samples a long curriculum has hardly begun and a short one is over, so that what is
compared is not the two recipes but how far each has got. Here it is seen on simulated learning
curves, where the best arm is known: {sweeps} sweeps of each family, {arms} arms in each, rungs at
{rungs} samples, of three arms one goes on.

![Two arms as either rule sees them, and how often the rules are wrong](images/fair_stopping.png)

*Left*: two arms whose curricula alone differ, in runs planned on {whole} samples. At every
rung but the last the one that is better in the end is worse. *Middle*: the same arms in runs
planned on each rung; what is compared are their ends. *Right*: how often the arm that a rule takes
for the best is worse than the best by more than {telling:g}, twice the noise of a measurement.
"""
TAIL: Final = """
*Wrong*: share of the sweeps, with its standard error. *Regret*: by how much the arm found is worse
than the best, on the average. *Cost*: samples, over those of every arm on the whole budget.
*Refused*: share of the sweeps in which the platform finds a comparison of the rule unfair.

What is seen:

- Where curricula have **different lengths**, halving on the way is wrong nearly always, and not by
  little. It is cheaper than the fair rule, and worth nothing. The platform refuses it in every one
  of these sweeps.
- **Runs planned on each rung** find the best arm about as often as training every arm to the end,
  which is itself misled by the noise of one measurement now and then.
- The **price of fairness**: a run of a rung begins anew, so that fair halving costs {over_naive}
  times what halving on the way does, {of_full:.0%} of every arm on the whole budget.
- Where curricula have **one length**, or there are **none**, all arms stand at one point at every
  rung. The naive rule is as good there and cheaper, and is not refused.
- Fairness is **no foresight**. Where the lower rungs are too short to learn in, a short run is a
  poor guess of a long one, and the fair rule goes wrong too, if less often: a rung has to be long
  enough for its recipe.

A simulated curve is floor + (1 + h / S)^-rate + 0.5 easy + 0.6 (1 + m / S)^-1/2. Here easy is how
much of the loss is still the easy one, from 1 to 0 over the curriculum; h are the samples of the
hard loss so far, m the samples that the curriculum lasts, and S is 2,000, or 100,000 in the family
of short rungs. Without a curriculum the last two terms are left out. Floor, rate and length are
drawn for each arm. The curves are assumed, not measured: they show what the rules do where a
curriculum is long and good, not how often it is.
"""


def page(stored: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        stored: The results.
    """
    lines = [
        markdown_row(["curricula", "rule", "wrong", "regret", "cost", "refused"]),
        markdown_row(["---", "---", "--:", "--:", "--:", "--:"]),
    ]
    for family, each in stored["families"].items():
        for rule, row in each["rules"].items():
            numbers = [
                f"{row['wrong']:.1%} ({row['wrong_error']:.1%})",
                f"{row['regret']:.4f}",
                f"{row['cost']:.1%}",
                f"{row['refused']:.0%}",
            ]
            lines.append(markdown_row([FAMILIES[family], RULES[rule], *numbers]))
    *rungs, whole = (f"{budget:,}" for budget in stored["budgets"])
    head = HEAD.format(
        sweeps=stored["sweeps"],
        arms=stored["arms"],
        rungs=f"{', '.join(rungs)} and {whole}",
        whole=whole,
        telling=stored["telling"],
    )
    apart = stored["families"]["apart"]["rules"]
    tail = TAIL.format(
        over_naive=f"{apart['fair']['cost'] / apart['naive']['cost']:.2f}",
        of_full=apart["fair"]["cost"],
    )
    return "\n".join([head, *lines, tail.rstrip("\n")]) + "\n"


def picture(stored: Mapping[str, Any]) -> Figure:
    """Two arms as either rule sees them, and how often the rules are wrong.

    Args:
        stored: The results.
    """
    figure = Figure(figsize=(10.5, 3.4))
    figure.set_layout_engine("constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.1))
    whole = str(stored["budgets"][-1])
    for axis, title in ((left, "planned on the whole run"), (middle, "planned on each rung")):
        _prepare(axis, title, stored["budgets"])
    for name, arm in stored["example"].items():
        label = f"{name} curriculum"
        _curve(left, arm["curves"][whole], COLOURS[name], label)
        at_rungs = dict(arm["curves"][whole])
        _ends(left, [(n, at_rungs[n]) for n in stored["budgets"]], COLOURS[name])
        for planned, points in arm["curves"].items():
            _curve(middle, points, COLOURS[name], label if planned == whole else "")
        _ends(middle, [points[-1] for points in arm["curves"].values()], COLOURS[name])
    middle.legend(fontsize=8, frameon=False)
    middle.sharey(left)
    left.set_ylabel("error", fontsize=9)
    _wrong(right, stored["families"])
    return figure


def _prepare(axis: Axes, title: str, budgets: list[int]) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xscale("log")
    axis.set_xlim(budgets[0] / 4, budgets[-1] * 1.3)
    axis.set_xlabel("samples", fontsize=9)
    axis.tick_params(labelsize=8)
    for budget in budgets:
        axis.axvline(budget, color="#cccccc", linewidth=0.8, zorder=0)


def _curve(axis: Axes, points: list[list[float]], colour: str, label: str) -> None:
    x, y = zip(*points[1:], strict=True)
    axis.plot(x, y, color=colour, linewidth=1.2, label=label or None)


def _ends(axis: Axes, points: list[Any], colour: str) -> None:
    x, y = zip(*points, strict=True)
    axis.plot(x, y, "o", color=colour, markersize=4.5)


def _wrong(axis: Axes, families: Mapping[str, Any]) -> None:
    axis.set_title("takes a wrong arm", fontsize=10)
    width = 0.26
    for offset, (rule, colour) in enumerate(BARS.items()):
        shares = [each["rules"][rule]["wrong"] for each in families.values()]
        errors = [each["rules"][rule]["wrong_error"] for each in families.values()]
        places = [place + (offset - 1) * width for place in range(len(families))]
        axis.bar(places, shares, width, yerr=errors, color=colour, label=rule, error_kw={"lw": 0.8})
    axis.set_xticks(range(len(families)), list(families), fontsize=9)
    axis.set_ylabel("share of sweeps", fontsize=9)
    axis.set_ylim(0.0, 1.0)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
