"""The page of the tournament, written from its stored results alone."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from onestep.platform.evaluation.report import Provenance
from onestep.platform.evaluation.table import markdown_row

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = DOCS / "tournament.md"
IMAGES: Final = DOCS / "images"
NFES: Final = (1, 2, 4, 8)
METRICS: Final = {
    "eight_gaussians": ("eval/w2", "eval/mode_mass_tv", "eval/outside_modes"),
    "checkerboard": ("eval/w2", "eval/forbidden_share"),
    "digits": (
        "eval/1nn_deviation",
        "eval/1nn_accuracy",
        "eval/coverage",
        "eval/class_agreement",
        "eval/memorisation_ratio",
    ),
}
"""The first decides and is better when smaller; the others stand beside it at one evaluation."""
HEAD: Final = """# Tournament

Written by `python benchmarks/tournament.py` from benchmarks/results/tournament.json. Every method
has the same seconds of processor time on one thread for all its stages together, those of its
teacher and its pairs too: its recipe is made longer or shorter, pairs included. The checkerboard is
trained with the recipes for eight Gaussians as they are. Numbers are means over seeds, after the
sign the largest distance of a seed from its mean.

Several evaluations of a consistency model draw noise anew for each (`Renoise`), but where its
recipe pairs noise with data by transport: that model is asked from its first noise, mixed into its
own last result (`AnchoredJumps`), since noise that is independent of the data it has not seen.
"""
Results = Sequence[Mapping[str, Any]]


def page(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page.

    Args:
        sets: Results by set.
    """
    parts = [HEAD, _winners(sets), *(_of_set(*each) for each in sets.items())]
    if missing := [name for name in METRICS if name not in sets]:
        parts.append(f"Not run yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def ranking(results: Results, metric: str) -> list[str]:
    """The recipes, the best at one step first.

    Args:
        results: Results on one set.
        metric: What decides.
    """
    names = {each["recipe"] for each in results}
    return sorted(names, key=lambda recipe: _mean(results, recipe, metric, NFES[0]))


def _winners(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Where each recipe is among the best."""
    places: dict[str, list[str]] = {}
    for name, found in sets.items():
        for nfe in NFES:
            for recipe in _best(found["results"], METRICS[name][0], nfe):
                places.setdefault(recipe, []).append(f"{name} at {nfe}")
    lines = [
        "## Where each is best",
        "",
        "Sets and numbers of network evaluations at which a recipe is the best, or as good as the "
        "best up to the spread of its seeds.",
        "",
        markdown_row(["recipe", "set and NFE"]),
        markdown_row(["---", "---"]),
        *(markdown_row([recipe, ", ".join(places[recipe])]) for recipe in sorted(places)),
    ]
    return "\n".join(lines) + "\n"


def _of_set(name: str, found: Mapping[str, Any]) -> str:
    results: Results = found["results"]
    first, *beside = METRICS[name]
    seeds = len({each["seed"] for each in results})
    recipes = ranking(results, first)
    best = {nfe: _best(results, first, nfe) for nfe in NFES}
    columns = [f"{_short(first)}, {nfe} NFE" for nfe in NFES]
    columns += [f"{_short(metric)}, 1 NFE" for metric in beside]
    lines = [
        f"## {name}",
        "",
        f"{found['seconds']:g} s each, {seeds} seeds. The best at each number of evaluations is in "
        "bold, with all whose mean lies within its own spread.",
        "",
        markdown_row(["recipe", "seconds", "ms a step", *columns]),
        markdown_row(["---", *("--:" for _ in range(2 + len(columns)))]),
    ]
    for recipe in recipes:
        own = [each for each in results if each["recipe"] == recipe]
        took = statistics.mean(each["core_s"] for each in own)
        step = statistics.mean(each["step_ms"] for each in own)
        cells = [_cell(results, recipe, first, nfe, bold=recipe in best[nfe]) for nfe in NFES]
        cells += [_cell(results, recipe, metric, 1, bold=False) for metric in beside]
        lines.append(markdown_row([recipe, f"{took:.0f}", f"{step:.1f}", *cells]))
    lines += _trivial(results, (first, *beside))
    lines += [
        "",
        "A step is one of the last stage.",
        "",
        f"![Quality over evaluations](images/tournament_{name}_nfe.png)",
        "",
        f"![Samples from the same noise](images/tournament_{name}.png)",
    ]
    return "\n".join(lines) + "\n"


def _trivial(results: Results, metrics: Sequence[str]) -> list[str]:
    known = {m["name"]: m for each in results for m in each["report"]["measurements"]}
    provenance = Provenance(**results[0]["report"]["provenance"])
    lines = []
    for label, kind in (
        ("training data, fresh (floor)", "floor"),
        (provenance.gaussian, "gaussian"),
        ("training data, resampled", "training_data"),
    ):
        values = [
            None
            if metric not in known
            else known[metric]["floor"]
            if kind == "floor"
            else known[metric]["baselines"].get(kind)
            for metric in metrics
        ]
        first, *beside = ["" if value is None else f"{value:.3f}" for value in values]
        lines.append(
            markdown_row([f"*{label}*", "", "", first, *([""] * (len(NFES) - 1)), *beside])
        )
    return lines


def _values(results: Results, recipe: str, metric: str, nfe: int) -> list[float]:
    return [
        m["value"]
        for each in results
        if each["recipe"] == recipe
        for m in each["report"]["measurements"]
        if (m["name"], m["nfe"]) == (metric, nfe)
    ]


def _mean(results: Results, recipe: str, metric: str, nfe: int) -> float:
    values = _values(results, recipe, metric, nfe)
    return statistics.mean(values) if values else math.inf


def _spread(values: Sequence[float]) -> float:
    middle = statistics.mean(values)
    return max(abs(value - middle) for value in values)


def _best(results: Results, metric: str, nfe: int) -> set[str]:
    """The recipe with the least mean, and all that its spread reaches."""
    recipes = {each["recipe"] for each in results}
    means = {recipe: _mean(results, recipe, metric, nfe) for recipe in recipes}
    winner = min(recipes, key=lambda recipe: means[recipe])
    if math.isinf(means[winner]):
        return set()
    reach = means[winner] + _spread(_values(results, winner, metric, nfe))
    return {recipe for recipe in recipes if means[recipe] <= reach}


def _cell(results: Results, recipe: str, metric: str, nfe: int, *, bold: bool) -> str:
    values = _values(results, recipe, metric, nfe)
    if not values:
        return ""
    text = f"{statistics.mean(values):.3f} +- {_spread(values):.3f}"
    return f"**{text}**" if bold else text


def _short(metric: str) -> str:
    return metric.split("/")[-1]
