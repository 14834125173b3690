"""The page of what a step of each method costs, made from the stored results alone."""

from collections.abc import Mapping
from typing import Any, Final

from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.benchmarks.record import DOCS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "method_cost.md"
HEAD: Final = """# What a step costs

Written by `python benchmarks/method_cost.py` from
[benchmarks/results/method_cost.json](../benchmarks/results/method_cost.json).

Time and memory of a step of training, over one of flow matching with the same network and the same
batch of {batch}, on {cpu}, one thread: the configuration that each method ships, without critics,
guidance or a distance in features, which a method's docstring prices under `Cost`. Each is timed
right after a step of flow matching ({base:.0f} ms); the ratio is the median of {rounds} rounds, in
brackets their quartiles. *Predicted* counts passes of the network: a backward pass for two forward
passes, a derivative for two. *Working* is the most memory within a step, *held* what stays between
steps: weights, averages, teachers and optimizers.

"""
COLUMNS: Final = ("method", "time", "quartiles", "predicted", "working", "held", "passes")


def page(stored: Mapping[str, Any], batch: int) -> str:
    """The whole page.

    Args:
        stored: The results.
        batch: Rows of the batch.
    """
    head = HEAD.format(
        batch=batch,
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
