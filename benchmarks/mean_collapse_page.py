"""The page of the mean collapse and its picture, made from the stored results alone."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from onestep.benchmarks.record import DOCS
from onestep.platform.evaluation.table import markdown_row

PAGE: Final = DOCS / "mean_collapse.md"
PICTURE: Final = DOCS / "images" / "mean_collapse.png"
TITLES: Final = {
    "independent": "independent",
    "minibatch_ot": "minibatch OT",
    "global_ot": "global OT",
    "loom": "LOOM",
    "teacher": "pairs of a teacher",
    "residual": "global OT, residual flow",
    "coupling": "global OT, coupling flow",
}
NUMBERS: Final = {
    "w2": "W2",
    "width": "width",
    "mode_std_ratio_min": "narrowest mode",
    "mode_std_ratio_max": "widest mode",
    "mode_mass_tv": "TV of masses",
    "outside_modes": "outside",
}
HEAD: Final = """# Mean collapse and its cure

Written by `python benchmarks/mean_collapse.py` from
[benchmarks/results/mean_collapse.json](../benchmarks/results/mean_collapse.json).

A [neural flow](../methods/neural_flow.py) is asked where a noise goes and never sees a point on
the way. What it learns is the mean of all data that its coupling has paired with that noise. The
recipe for eight Gaussians is trained here with one coupling after the other, for the same number
of samples, on {data} data, and judged by one step from fresh noise against data that it has not
seen. Its network is free; the last two rows take the forms whose every jump can be undone, a
[residual flow](../methods/nets/residual_flow.py) of ten steps and a
[coupling flow](../methods/nets/coupling_flow.py). The third form, a U-Net, is for images.

![Samples of one step under each coupling](images/mean_collapse.png)
"""
TAIL: Final = """
*Width*: standard deviation of all samples over that of the data; 0 is a single point. *Narrowest*
and *widest mode*: standard deviation within a mode over that of the law. *TV of masses*: total
variation between the shares of the modes and one eighth each. *Outside*: share of samples farther
than four standard deviations from every mode. *Seconds*: processor time of the training on one
thread, its assignments included; *before*: that of a teacher and its pairs.

What is seen:

- **Independent** pairs say nothing of the data of a noise. Every noise goes to the mean of all
  data, where there are none: the collapse.
- **Minibatch OT** pairs a noise with data near to it, but with others in the next batch. The
  collapse is gone; what is left of it are points between the modes, and modes that look wider.
- **Global OT** gives each datum one noise, by one assignment of the whole set. A noise has one
  datum, and nothing is left to average. The noises are as few as the data and can be learnt by
  heart.
- **LOOM** comes to nearly the same assignment batch by batch, without ever solving the whole.
- **The pairs of a teacher** are the only ones that decide the data of a fresh noise too. They cost
  the teacher, and its errors are learnt.
- **Residual and coupling flows** learn the same pairs without collapse, but cannot tear the noise:
  what joins the modes in it still joins them in the samples. A coupling flow stretches it to thin
  bridges. A residual flow, no step of which may be steep, comes to the ring on which the modes lie
  and hardly parts them.

W2 is moved most by the shares of the modes and hardly by points between them: it tells the collapse
from its cures, but not the cures from each other.
"""


def page(stored: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        stored: The results.
    """
    trials = stored["trials"]
    lines = [
        markdown_row(["coupling", *NUMBERS.values(), "seconds", "before"]),
        markdown_row(["---", *("--:" for _ in NUMBERS), "--:", "--:"]),
    ]
    for name, trial in trials.items():
        numbers = [f"{trial[number]:.3f}" for number in NUMBERS]
        seconds = [f"{trial['core_s']:.0f}", f"{trial['core_s_before']:.0f}"]
        lines.append(markdown_row([TITLES[name], *numbers, *seconds]))
    fresh = stored["fresh_data"]
    shown = [f"{fresh[number]:.3f}" if number in fresh else "" for number in NUMBERS]
    lines.append(markdown_row(["*fresh data (floor)*", *shown, "", ""]))
    return "\n".join([HEAD.format(data=stored["data"]), *lines, TAIL.rstrip("\n")]) + "\n"


def picture(stored: Mapping[str, Any]) -> Figure:
    """Samples of every trial beside data, all at one scale.

    Args:
        stored: The results.
    """
    panels = {"data": stored["fresh_points"]} | {
        TITLES[name]: trial["points"] for name, trial in stored["trials"].items()
    }
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, line) in zip(axes, panels.items(), strict=False):
        x = _points(line)
        axis.scatter(x[:, 0], x[:, 1], s=3, c="#0072b2", linewidths=0)
        axis.set_xlim(-2.1, 2.1)
        axis.set_ylim(-2.1, 2.1)
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=9)
    return figure


def _points(line: str) -> Float[Tensor, "n 2"]:
    return torch.tensor([int(value) for value in line.split()]).reshape(-1, 2) / 100.0
