"""The page of what a step of each method costs, made from the stored results alone."""

import json
from collections.abc import Mapping, Set
from typing import Any, Final

from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.benchmarks.record import DOCS, RESULTS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "method_cost.md"
BATCH: Final = 64
"""Rows of the step of each method."""
HEAD: Final = """# What a step costs

Written by `python benchmarks/method_cost.py` and `python benchmarks/step_time.py` from
[method_cost.json](../benchmarks/results/method_cost.json) and
[step_time.json](../benchmarks/results/step_time.json).

## Every method

Time and memory of a step of training, over one of flow matching with the same network and the same
batch of {batch}, on {cpu}, one thread: the configuration that each method ships, without critics,
guidance or a distance in features, which a method's docstring prices under `Cost`. Each is timed
right after a step of flow matching ({base:.0f} ms); the ratio is the median of {rounds} rounds, in
brackets their quartiles. *Predicted* counts passes of the network: a backward pass for two forward
passes, a derivative for two. *Working* is the most memory within a step, *held* what stays between
steps: weights, averages, teachers and optimizers.

"""
COLUMNS: Final = ("method", "time", "quartiles", "predicted", "working", "held", "passes")
DERIVATIVE: Final = """
## The derivative of MeanFlow

A step of MeanFlow with {off:.0%} of its rows off the diagonal, over one of flow matching with the
same network and batch, forward and backward pass alone, on {cpu}, one thread: *exact* with forward
mode, *recommended* with what the measurements of `onestep doctor` recommend for the network. Times
are medians of the ratios of rounds in which each kind takes its turn, with their quartiles in
brackets; *memory* is the most within a step; *error* is that of the derivative, the norm of its
difference from float64 over its norm. Bars: {bars}. In bold what misses its bar.

"""
KINDS: Final = ("exact", "recommended")
OF_DERIVATIVE: Final = (
    "network",
    "rows",
    *("exact time", "exact memory", "exact error"),
    "recommended",
    *("its time", "its memory", "its error"),
)


def write() -> None:
    """Write the page again from what is stored."""
    names = ("method_cost", "step_time")
    PAGE.write_text(page(*(json.loads((RESULTS / f"{name}.json").read_text()) for name in names)))


def page(stored: Mapping[str, Any], derivatives: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        stored: What method_cost.json holds.
        derivatives: What step_time.json holds.
    """
    return _of_methods(stored) + _of_derivatives(derivatives)


def _of_methods(stored: Mapping[str, Any]) -> str:
    head = HEAD.format(
        batch=BATCH,
        cpu=stored["machine"]["cpu"],
        base=1e3 * stored["flow_matching_s"],
        rounds=stored["rounds"],
    )
    lines = [markdown_row(COLUMNS), markdown_row(["---", *["--:"] * 5, "---"])]
    lines += [_row(name, each) for name, each in stored["methods"].items()]
    above = [
        f"- *{name}*: {PREDICTIONS[name].excess}"
        for name, each in stored["methods"].items()
        if each["ratio"] > 1.15 * each["predicted"]
    ]
    if above:
        lines += ["", "More than 15 % above the prediction:", "", *above]
    return head + "\n".join(lines) + "\n"


def _row(name: str, row: Mapping[str, Any]) -> str:
    low, _, high = row["quartiles"]
    numbers = (row["ratio"], row["predicted"], row["working_ratio"], row["held_ratio"])
    time, predicted, working, held = (f"{number:.2f}" for number in numbers)
    spread = f"{low:.2f} to {high:.2f}"
    return markdown_row([name, time, spread, predicted, working, held, row["predicted_from"]])


def _of_derivatives(stored: Mapping[str, Any]) -> str:
    bars = {bar["ratio"]: bar["bar"] for bar in stored["bars"]}
    head = DERIVATIVE.format(
        off=stored["off_diagonal_share"],
        cpu=stored["machine"]["cpu"],
        bars=", ".join(f"{_words(ratio)} {bar}" for ratio, bar in bars.items()),
    )
    missed = {(bar["network"], bar["ratio"]) for bar in stored["bars"] if not bar["reached"]}
    lines = [
        markdown_row(OF_DERIVATIVE),
        markdown_row(["---", *["--:"] * 4, "---", *["--:"] * 3]),
    ]
    for case in stored["cases"]:
        exact, recommended = (_of_kind(kind, case, missed) for kind in KINDS)
        cells = [case["network"], str(case["rows"]), *exact, case["recommended"], *recommended]
        lines.append(markdown_row(cells))
    return head + "\n".join(lines) + "\n"


def _words(ratio: str) -> str:
    what = ratio.removesuffix("_ratio")
    return what.replace("_", " ") if what.endswith("_memory") else f"{what} time"


def _of_kind(kind: str, case: Mapping[str, Any], missed: Set[tuple[str, str]]) -> list[str]:
    """Time, memory and error of a way to differentiate."""
    found = []
    for ratio in (f"{kind}_ratio", f"{kind}_memory_ratio"):
        text = f"{case[ratio]:.2f}"
        found.append(f"**{text}**" if (case["network"], ratio) in missed else text)
    low, _, high = case[f"quartiles_{kind}"]
    time, memory = found
    return [f"{time} [{low:.2f}, {high:.2f}]", memory, f"{case[f'{kind}_error']:.0e}"]
