"""The page of what every method learns, written from the stored results alone."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from onestep.benchmarks.planar import POINTS
from onestep.benchmarks.record import DOCS, RESULTS, processors
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "learning.md"
HEAD: Final = """# What every method learns

Written by `python benchmarks/learning.py` and `python benchmarks/learning_digits.py` from
[learning.json](../benchmarks/results/learning.json) and
[learning_digits.json](../benchmarks/results/learning_digits.json). Each recipe starts from random
weights, or from those of its teacher. On the plane some recipes that were made for other bars are
shortened here (`SHORTER` in benchmarks/recipes.py). *Seconds* are processor time of its own
trainings on one thread, with that of the weights that it begins from where they are no teacher's,
as easy_consistency_tuning does; *before* is that of its teacher and of making pairs. The same
recipe may look quite different in the [tournament](tournament.md), where all have the same short
time with that of their teachers, in which some have hardly begun to learn. A model is judged at
one step; a velocity that is not straight, which nobody would ask for one, at its many. In bold what
misses its bar.
"""
PLANE: Final = {
    "mode_mass_tv": "TV of masses",
    "mode_std_ratio_min": "narrowest mode",
    "mode_std_ratio_max": "widest mode",
    "outside_modes": "outside",
    "w2": "W2",
}


NAMES: Final = {**PLANE, "core_s": "time"}
"""What the numbers of a bar are called in a sentence."""


def write() -> None:
    """Write the page again from what is stored."""
    names = ("learning", "learning_digits")
    found = {
        name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names if _has(name)
    }
    PAGE.write_text(page(found.get("learning"), found.get("learning_digits")))


def page(plane: Mapping[str, Any] | None, digits: Mapping[str, Any] | None) -> str:
    """The whole page.

    Args:
        plane: What learning.json holds.
        digits: What learning_digits.json holds.
    """
    parts = [HEAD]
    parts += [] if plane is None else [_of_the_plane(plane)]
    parts += [] if digits is None else [_of_digits(digits)]
    return "\n".join(parts)


def _of_the_plane(found: Mapping[str, Any]) -> str:
    bars, rows = found["bars"], found["recipes"]
    seconds = bars["core_s"]
    lines = [
        "## Eight Gaussians in one step",
        "",
        f"Bars: {PLANE['mode_mass_tv']} <= {bars['mode_mass_tv']:g}, standard deviations within "
        f"the modes {bars['mode_std_ratio_min']:g} to {bars['mode_std_ratio_max']:g} times the "
        f"law's, at most {bars['outside_modes']:.0%} of samples farther than four of them from "
        f"every mode, {seconds['one_stage']:g} seconds ({seconds['several_stages']:g} for several "
        f"stages of its own). W2 is that of {POINTS} samples: fewer lie farther from the law.",
        "",
        markdown_row(["recipe", "steps", *PLANE.values(), "stages", "seconds", "before"]),
        markdown_row(["---", *["--:"] * (len(PLANE) + 4)]),
    ]
    for name, row in rows.items():
        numbers = {number: f"{row[number]:.3f}" for number in PLANE}
        numbers["core_s"] = f"{row['core_s']:.0f}"
        cells = _bold(numbers, found["misses"].get(name, {}))
        stages = str(row["stages"])
        *quality, took = cells
        lines.append(markdown_row([name, _steps(row), *quality, stages, took, _before(row)]))
    for name in ("training_data", "one_gaussian"):
        cells = [f"{found[name][number]:.3f}" for number in PLANE]
        lines.append(markdown_row([f"*{name.replace('_', ' ')}*", "", *cells, "", "", ""]))
    lines += ["", _devices(rows)]
    return "\n".join([*lines, *_reasons(found)]) + "\n"


def _of_digits(found: Mapping[str, Any]) -> str:
    bars, rows = found["bars"], found["recipes"]
    some = next(iter(rows.values()))
    lines = [
        "## Handwritten digits",
        "",
        "1-nearest-neighbour two-sample accuracy against images that no model has seen, .5 where "
        "nothing tells them apart, with a 95 % interval over draws. Bars: "
        f"{bars['accuracy']:g}, {bars['core_s']:g} seconds of processor time, which are "
        f"{bars['core_s'] / 120:g} minutes of two cores, and a deviation of {bars['deviation']:g}: "
        "the mean distance from .5 of the shares of samples and of images, "
        "which noise on top of data does not even out. A Gaussian for each class has "
        f"{some['gaussian']:.3f} and {some['deviation_of_gaussian']:.3f}, as many training images "
        f"an accuracy of {some['floor']:.3f}.",
        "",
        markdown_row(["recipe", "NFE", "accuracy", "interval", "deviation", "seconds", "before"]),
        markdown_row(["---", *["--:"] * 6]),
    ]
    for name, row in rows.items():
        numbers = {name: f"{row[name]:.3f}" for name in ("accuracy", "deviation")}
        numbers["core_s"] = f"{row['core_s']:.0f}"
        accuracy, deviation, seconds = _bold(numbers, found["misses"].get(name, {}))
        low, high = row["interval"]
        interval = f"[{low:.3f}, {high:.3f}]"
        lines.append(
            markdown_row(
                [name, str(row["nfe"]), accuracy, interval, deviation, seconds, _before(row)]
            )
        )
    lines += ["", _devices(rows)]
    if found["missing"]:
        lines += ["", f"Not trained yet: {', '.join(found['missing'])}."]
    return "\n".join([*lines, *_one_step(rows), *_reasons(found)]) + "\n"


def _devices(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return f"Seconds of one processor are not those of another. Here: {processors(rows)}."


def _one_step(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the least evaluations give of velocities that are judged at many."""
    shown = []
    for name, row in rows.items():
        keys = [key for key in row["metrics"] if key.startswith("eval/1nn_accuracy/nfe_")]
        least = min(keys, key=_nfe_of)
        if _nfe_of(least) < row["nfe"]:
            shown.append(f"{name} {row['metrics'][least]:.3f} ({_nfe_of(least)} NFE)")
    if shown:
        yield from [
            "",
            "What is judged at many evaluations has, in one step and the last denoising where its "
            f"times end before the data: {', '.join(shown)}.",
        ]


def _nfe_of(key: str) -> int:
    return int(key.rpartition("_")[2])


def _bold(numbers: Mapping[str, str], misses: Mapping[str, str]) -> list[str]:
    return [f"**{text}**" if name in misses else text for name, text in numbers.items()]


def _steps(row: Mapping[str, Any]) -> str:
    """Steps of the sampler that a model is judged with, which it names."""
    found = re.search(r"steps=(\d+)", row["sampler"])
    assert found is not None, "a sampler of the plane has a grid"
    return found[1]


def _before(row: Mapping[str, Any]) -> str:
    """Seconds that are not the recipe's own: teachers, and pairs."""
    spent = sum(sum(stage.values()) for stage in row["core_s_of_stages"].values())
    return f"{spent - row['core_s']:.0f}"


def _reasons(found: Mapping[str, Any]) -> Iterator[str]:
    for name, misses in found["misses"].items():
        yield from [
            "",
            f"**{name}** misses {_and(sorted(misses))}. {' '.join(_once(misses))}".rstrip(),
        ]


def _once(misses: Mapping[str, str]) -> list[str]:
    """Each reason once, however many numbers it holds for."""
    return list(dict.fromkeys(misses.values()))


def _and(names: Sequence[str]) -> str:
    plain = [NAMES.get(name, name) for name in names]
    return " and ".join([", ".join(plain[:-1]), plain[-1]] if plain[1:] else plain)


def _has(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()
