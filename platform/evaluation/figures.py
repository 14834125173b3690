"""Figures of a comparison: samples from the same noise, quality against evaluations, points."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from ..atomic import write_bytes
from .report import Report

_DPI: Final = 160
_METADATA: Final = {"Software": None}
"""Without the version of matplotlib in the file, equal pictures are equal files."""
INK: Final = "#222222"
GREY: Final = "#8a8a8a"
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, which people with any colour vision can tell apart."""
_WIDE: Final = 5.0
"""Ratio of the largest value to the smallest from which on an axis is logarithmic."""
_TITLE_LETTERS: Final = 34  # of a line that fits above a panel of images
_SIDE_LETTERS: Final = 28
_LETTER: Final = 0.075  # inches at 9 points
_TITLES: Final = {
    "eval/1nn_deviation": "1-nearest-neighbour two-sample deviation",
    "eval/sliced_w2": "sliced 2-Wasserstein distance",
    "eval/w2": "2-Wasserstein distance",
    "eval/coverage": "coverage",
    "eval/frechet_features": "Frechet distance of classifier features",
}


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: The figure.
        path: File to write.
    """
    write_bytes(path, png_of(figure))


def png_of(figure: Figure) -> bytes:
    """A figure as PNG.

    Args:
        figure: The figure.
    """
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format="png",
        dpi=_DPI,
        facecolor="white",
        metadata=_METADATA,
        bbox_inches="tight",
        pad_inches=0.06,
    )
    return stream.getvalue()


def _picture(images: Float[Tensor, "r c ch h w"]) -> np.ndarray:
    """Images in rows and columns as one picture with a gap of a pixel between them."""
    rows, columns, channels, height, width = images.shape
    padded = torch.ones(rows, columns, channels, height + 1, width + 1)
    padded[..., :height, :width] = (images.float().clamp(-1.0, 1.0) + 1.0) / 2.0
    joined = padded.permute(0, 3, 1, 4, 2).reshape(rows * (height + 1), -1, channels)
    picture: np.ndarray = joined[:-1, :-1].numpy()
    return picture


def sample_grid(panels: Mapping[str, Float[Tensor, "n c h w"]], *, columns: int) -> Figure:
    """Images of several models side by side, one panel for each.

    Panels show the same noise and labels in the same place where the images were made so.

    Args:
        panels: Images in [-1, 1] by the name of the model; n is a multiple of the columns.
        columns: Images in a row of a panel.

    Raises:
        ValueError: If there are no panels, or a panel is not a full grid.
    """
    if not panels:
        raise ValueError("a sample grid needs at least one panel, got none")
    for name, x in panels.items():
        if len(x) == 0 or len(x) % columns:
            raise ValueError(
                f"a panel must have a multiple of {columns} images, got {len(x)} of {name}"
            )
    shown = {name: x.cpu().reshape(-1, columns, *x.shape[1:]) for name, x in panels.items()}
    wide = 2.2
    high = max(wide * x.shape[0] * x.shape[3] / (x.shape[1] * x.shape[4]) for x in shown.values())
    per_row = min(4, len(shown))
    lines = -(-len(shown) // per_row)
    titles = [textwrap.fill(name, _TITLE_LETTERS) for name in shown]
    above = 0.18 + 0.14 * max(1 + title.count("\n") for title in titles)
    figure = Figure(figsize=(wide * per_row + 0.1, (high + above) * lines))
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    axes = figure.subplots(lines, per_row, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, title, x in zip(axes, titles, shown.values(), strict=False):
        picture = _picture(x)
        axis.imshow(
            picture.squeeze(-1) if picture.shape[-1] == 1 else picture,
            cmap="gray",
            vmin=0.0,
            vmax=1.0,
            interpolation="nearest",
        )
        axis.set_title(title, fontsize=9, color=INK, pad=4)
    return figure


def style(axis: Axes) -> None:
    """Give axes the look that all figures have."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(GREY)
    axis.tick_params(colors=INK, labelsize=8, length=3)


def quality_against_nfe(reports: Sequence[Report], *, metric: str = "eval/1nn_deviation") -> Figure:
    """One line for each model with its interval, and the floor and the Gaussian as level lines.

    Args:
        reports: Reports of several models on the same yardstick.
        metric: What to draw.

    Raises:
        ValueError: If no report has the metric.
    """
    figure = Figure(figsize=(6.4, 3.6))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    style(axis)
    ticks: set[int] = set()
    level = None
    shown: list[float] = []
    for colour, report in zip(_endless(len(reports)), reports, strict=True):
        points = {m.nfe: m for m in reversed(report.measurements) if m.name == metric and m.nfe}
        if not points:
            continue
        nfes = sorted(points)
        ticks.update(nfes)
        level = points[nfes[0]]
        values = [points[n].value for n in nfes]
        shown += values
        low, high = zip(*(points[n].interval for n in nfes), strict=True)
        axis.fill_between(nfes, low, high, color=colour, alpha=0.15, linewidth=0)
        label = report.provenance.title
        axis.plot(nfes, values, color=colour, marker="o", markersize=4, lw=1.6, label=label)
    if level is None:
        raise ValueError(f"a figure of {metric} needs a report that has it, got none")
    gaussian = reports[0].provenance.gaussian
    levels = {"data (floor)": level.floor, gaussian: level.baselines.get("gaussian")}
    for (name, value), dash in zip(levels.items(), ("-", "--"), strict=True):
        if value is not None:
            axis.axhline(value, color=GREY, lw=1.0, ls=dash, zorder=0, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    if max(shown) > _WIDE * min(shown) > 0:  # or all but the worst would be one line
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_xlabel("network evaluations per sample", fontsize=9, color=INK)
    axis.set_title(_TITLES.get(metric, metric), fontsize=10, color=INK, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _endless(n: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(n)]


def scatter_panels(
    data: Float[Tensor, "n 2"],
    models: Mapping[str, Mapping[int, Float[Tensor, "m 2"]]],
    *,
    shown: int = 2000,
) -> Figure:
    """Points in the plane: the data, then each model in a row over numbers of evaluations.

    Args:
        data: Points of the data.
        models: Points by model and by number of evaluations.
        shown: Most points of a panel.

    Raises:
        ValueError: If there is no model.
    """
    if not models:
        raise ValueError("scatter panels need at least one model, got none")
    nfes = sorted({nfe for panels in models.values() for nfe in panels})
    limit = data[:shown].abs().max().item() * 1.15
    side = 1.5
    names = [textwrap.fill(name, _SIDE_LETTERS) for name in models]
    beside = _LETTER * max(len(line) for name in names for line in name.splitlines())
    size = (side * (len(nfes) + 1) + 0.3 + beside, side * len(models) + 0.3)
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    axes = figure.subplots(len(models), len(nfes) + 1, squeeze=False)
    for axis in axes.ravel():
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for colour, row, (name, panels) in zip(
        _endless(len(models)), axes, zip(names, models.values(), strict=True), strict=True
    ):
        row[0].set_ylabel(name, fontsize=9, color=INK, rotation=0, ha="right", va="center")
        _points(row[0], data[:shown], GREY)
        for axis, nfe in zip(row[1:], nfes, strict=True):
            if nfe in panels:
                _points(axis, panels[nfe][:shown], colour)
    axes[0, 0].set_title("data", fontsize=9, color=INK)
    for axis, nfe in zip(axes[0, 1:], nfes, strict=True):
        axis.set_title(f"{nfe} NFE", fontsize=9, color=INK)
    return figure


def _points(axis: Axes, x: Tensor, colour: str) -> None:
    first, second = x.cpu().T.numpy()
    axis.scatter(first, second, s=1.2, c=colour, alpha=0.5, linewidths=0, rasterized=True)
