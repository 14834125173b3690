"""The page of the tournament, written from its stored results alone."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from onestep.benchmarks.record import DOCS, processors
from onestep.platform.evaluation.report import Provenance
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "tournament.md"
IMAGES: Final = DOCS / "images"
NFES: Final = (1, 2, 4, 8)
TOLERANCE: Final = 0.15
"""Share of the seconds by which a training may miss them."""
TRIES: Final = 3
"""Most trainings of a seed, of which the one nearest to the seconds counts."""
_IMAGES: Final = (
    "eval/1nn_deviation",
    "eval/1nn_accuracy",
    "eval/coverage",
    "eval/class_agreement",
    "eval/memorisation_ratio",
)
METRICS: Final = {
    "eight_gaussians": (
        "eval/w2",
        "eval/1nn_accuracy",
        "eval/mode_mass_tv",
        "eval/outside_modes",
        "eval/memorisation_ratio",
    ),
    "checkerboard": (
        "eval/w2",
        "eval/1nn_accuracy",
        "eval/forbidden_share",
        "eval/memorisation_ratio",
    ),
    "digits": _IMAGES,
    "mnist": _IMAGES,
    "fashion_mnist": _IMAGES,
    "cifar10": _IMAGES,
}
"""The first decides and is better when smaller; the others stand beside it at one evaluation."""
HEAD: Final = """# Tournament

Written by `python benchmarks/tournament.py` from benchmarks/results/tournament.json. Every method
has the same seconds of processor time on one thread for all its stages together, those of its
teacher and its pairs too: its recipe is made longer or shorter, pairs included. A training that
took {tolerance:.0%} more or less is repeated at another length, and of up to {tries} the nearest
counts; a recipe that no length brought there has its seconds in italics, and is nowhere the best.
Seconds of one processor are not those of another, so that all of a set are measured on one.
The checkerboard is trained with the recipes for eight Gaussians as they are.

Numbers are means over seeds, in brackets the least and the largest end of their 95 % intervals. A
mean within the brackets of the best is as good as the best, and so is one at the floor, which is
what as many fresh points of the data come to; these are in bold. The seeds are few, so that an
order of means that lie near each other is no finding. A memorisation ratio far below that of the
floor would mean training points that come again.

On the plane W2 is moved most by the shares of modes and squares, and many recipes reach its floor:
those are told apart by the accuracy of the nearest neighbour at one step, .5 where samples are like
data, and a game whose modes are too wide shows there.

Recipes have other lengths here than in [learning.md](learning.md), where each takes what it needs,
and fewer samples are drawn, from which W2 is larger for the same law.

Several evaluations of a consistency model draw noise anew for each (`Renoise`), but where its
recipe pairs noise with data by transport: that model is asked from its first noise, mixed into its
own last result (`AnchoredJumps`), since noise that is independent of the data it has not seen. It
has not quite seen this either, as the transport of a batch decides the data of a noise in part
only, and samples grow wider with every step: what it can do is best seen at 1.
"""
Results = Sequence[Mapping[str, Any]]


def page(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page.

    Args:
        sets: Results by set.
    """
    head = HEAD.format(tolerance=TOLERANCE, tries=TRIES)
    whole = {name: found for name, found in sets.items() if not found["missing"]}
    parts = [head, _winners(whole), *(_of_set(*each) for each in sets.items())]
    if missing := [name for name in METRICS if name not in sets]:
        parts.append(f"Not run: {', '.join(missing)}.\n")
    return "\n".join(parts)


def ranking(results: Results, metric: str) -> list[str]:
    """The recipes, the best at one step first.

    Args:
        results: Results on one set.
        metric: What decides.
    """
    return sorted(
        _recipes(results), key=lambda recipe: (_mean(results, recipe, metric, NFES[0]), recipe)
    )


def _winners(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Where each recipe is among the best."""
    places: dict[str, dict[str, list[str]]] = {}
    for name, found in sets.items():
        for nfe in NFES:
            for recipe in _good(found, METRICS[name][0], nfe):
                said = f"{nfe}" if _in_time(found, recipe) else f"*{nfe}*"
                places.setdefault(recipe, {}).setdefault(name, []).append(said)
    cells = {
        recipe: [", ".join(own.get(name, [])) for name in sets] for recipe, own in places.items()
    }
    lines = [
        "## Where each is best",
        "",
        "Numbers of network evaluations at which a recipe is the best on a set, or as good as the "
        "best; in italics where it would be, but had other seconds. Sets on which all recipes have "
        "been run:",
        "",
        markdown_row(["recipe", *sets]),
        markdown_row(["---", *("---" for _ in sets)]),
        *(markdown_row([recipe, *cells[recipe]]) for recipe in sorted(cells)),
    ]
    return "\n".join(lines) + "\n"


def _of_set(name: str, found: Mapping[str, Any]) -> str:
    results: Results = found["results"]
    first, *beside = METRICS[name]
    seeds = len({each["seed"] for each in results})
    recipes = ranking(results, first)
    best = {nfe: _best(found, first, nfe) for nfe in NFES}
    columns = [f"{_short(first)}, {nfe} NFE" for nfe in NFES]
    columns += [f"{_short(metric)}, 1 NFE" for metric in beside]
    lines = [
        f"## {name}",
        "",
        f"{found['seconds']:g} s each, {seeds} seeds; on {processors(_by_recipe(results))}.",
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
        seconds = f"{took:.0f}" if _in_time(found, recipe) else f"*{took:.0f}*"
        lines.append(markdown_row([recipe, seconds, f"{step:.1f}", *cells]))
    lines += _trivial(results, (first, *beside))
    lines += [
        "",
        "A step is one of the last stage."
        + (f" Not run: {', '.join(found['missing'])}." if found["missing"] else ""),
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


def _by_recipe(results: Results) -> dict[str, Mapping[str, Any]]:
    return {each["recipe"]: each for each in results}


def _recipes(results: Results) -> set[str]:
    return {each["recipe"] for each in results}


def _found(results: Results, recipe: str, metric: str, nfe: int) -> list[Mapping[str, Any]]:
    """What each seed's report says."""
    return [
        m
        for each in results
        if each["recipe"] == recipe
        for m in each["report"]["measurements"]
        if (m["name"], m["nfe"]) == (metric, nfe)
    ]


def _mean(results: Results, recipe: str, metric: str, nfe: int) -> float:
    values = [each["value"] for each in _found(results, recipe, metric, nfe)]
    return statistics.mean(values) if values else math.inf


def _best(found: Mapping[str, Any], metric: str, nfe: int) -> set[str]:
    """The recipe with the least mean, and all that are as good or as good as the data."""
    return {recipe for recipe in _good(found, metric, nfe) if _in_time(found, recipe)}


def _good(found: Mapping[str, Any], metric: str, nfe: int) -> set[str]:
    """The same with those that had other seconds, which are nowhere the best themselves."""
    results: Results = found["results"]
    means = {
        recipe: _mean(results, recipe, metric, nfe)
        for recipe in _recipes(results)
        if _found(results, recipe, metric, nfe)
    }
    in_time = [recipe for recipe in means if _in_time(found, recipe)]
    if not in_time:
        return set()
    best = _found(results, min(in_time, key=means.__getitem__), metric, nfe)
    floor = best[0]["floor"]
    reach = max(_ends(best)[1], -math.inf if floor is None else floor)
    return {recipe for recipe, mean in means.items() if mean <= reach}


def _in_time(found: Mapping[str, Any], recipe: str) -> bool:
    """Whether each of its trainings took about the seconds of the set."""
    took = [each["core_s"] for each in found["results"] if each["recipe"] == recipe]
    return all(abs(each / found["seconds"] - 1) <= TOLERANCE for each in took)


def _ends(found: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The least and the largest end of the seeds' intervals."""
    lows, highs = zip(*(each["interval"] for each in found), strict=True)
    return min(lows), max(highs)


def _cell(results: Results, recipe: str, metric: str, nfe: int, *, bold: bool) -> str:
    found = _found(results, recipe, metric, nfe)
    if not found:
        return ""
    low, high = _ends(found)
    text = f"{_mean(results, recipe, metric, nfe):.3f} [{low:.3f}, {high:.3f}]"
    return f"**{text}**" if bold else text


def _short(metric: str) -> str:
    return metric.split("/")[-1]
