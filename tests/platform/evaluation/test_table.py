"""Tables and figures of several reports."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from onestep.platform.evaluation.figures import (
    quality_against_nfe,
    sample_grid,
    save_png,
    scatter_panels,
)
from onestep.platform.evaluation.report import Measurement, Provenance, Report
from onestep.platform.evaluation.table import rows, to_csv, to_markdown


def report(model: str, *, worse: float = 0.0, classes: int | None = 10) -> Report:
    measurements = [
        Measurement(
            name=name,
            value=value + worse / nfe,
            interval=(value + worse / nfe - 0.01, value + worse / nfe + 0.01),
            count=436,
            draws=8,
            space="data",
            nfe=nfe,
            sampler=f"Jumps(steps={nfe})",
            floor=0.51,
            baselines={"gaussian": 0.67, "training_data": 0.59},
        )
        for nfe in (1, 2, 4, 8)
        for name, value in (("eval/1nn_accuracy", 0.55), ("eval/sliced_w2", 0.06))
    ]
    straight = Measurement(
        name="eval/straightness", value=0.2, interval=(0.1, 0.3), count=128, draws=1, space="data"
    )
    provenance = Provenance(
        model=model,
        data="digits",
        data_digest="ab" * 32,
        features="sha256:" + "cd" * 32,
        classifier_accuracy=0.991,
        count=436,
        draws=8,
        seed=0,
        classes=classes,
    )
    return Report(provenance=provenance, measurements=(*measurements, straight))


def test_the_table_has_a_line_for_each_sampling_and_each_yardstick() -> None:
    table = to_markdown([report("mean_flow"), report("shortcut", worse=0.1)])
    lines = table.splitlines()
    assert lines[0] == "| model | NFE | sampler | 1nn_accuracy | sliced_w2 |"
    assert "| shortcut | 1 | Jumps | 0.650 [0.640, 0.660] | 0.160 [0.150, 0.170] |" in lines
    assert sum(line.startswith("| mean_flow ") for line in lines) == 4
    assert "| *training data, fresh (floor)* |  |  | 0.510 | 0.510 |" in lines
    assert "| *Gaussian per class* |  |  | 0.670 | 0.670 |" in lines
    assert "| *training data, resampled* |  |  | 0.590 | 0.590 |" in lines


@pytest.mark.parametrize("classes", [0, None])
def test_without_classes_the_baseline_is_one_gaussian(classes: int | None) -> None:
    plain = report("mean flow", classes=classes)
    assert "| *Gaussian* |  |  | 0.670 | 0.670 |" in to_markdown([plain]).splitlines()
    legend = quality_against_nfe([plain], metric="eval/sliced_w2").axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[-1].get_text() == "Gaussian"


def test_the_table_says_what_its_numbers_rest_on() -> None:
    table = to_markdown([report("mean_flow")])
    for part in ("digits", "abababababab", "8 draws of 436", "sha256:cdcdcdcdcdcd", "99.1%"):
        assert part in table


def test_rows_hold_every_number_with_its_provenance() -> None:
    found = rows([report("mean_flow"), report("shortcut")])
    assert len(found) == 2 * 9
    table = list(csv.DictReader(io.StringIO(to_csv([report("mean_flow")]))))
    assert table[0]["metric"] == "eval/1nn_accuracy"
    assert float(table[0]["value"]) == 0.55
    assert table[0]["features"] == "sha256:" + "cd" * 32
    assert table[-1]["nfe"] == ""


def test_reports_on_different_data_are_not_compared() -> None:
    other = report("shortcut")
    other = replace(other, provenance=replace(other.provenance, data_digest="ef" * 32))
    with pytest.raises(ValueError, match="same data"):
        to_markdown([report("mean_flow"), other])
    with pytest.raises(ValueError, match="at least one"):
        to_markdown([])


def test_a_figure_is_a_png_and_equal_figures_are_equal_files(tmp_path: Path) -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in ("one.png", "two.png"):
        grid = sample_grid({"mean flow": images, "shortcut": images}, columns=10)
        save_png(grid, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_a_grid_shows_each_image_at_its_place() -> None:
    images = torch.full((4, 1, 2, 2), -1.0)
    images[3] = 1.0
    figure = sample_grid({"model": images}, columns=2)
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown.shape == (5, 5)
    assert float(shown[:2, :2].max()) == 0.0
    assert float(shown[3:, 3:].min()) == 1.0
    assert float(shown[2].min()) == 1.0


def _overprinted(figure: Figure, texts: Sequence[Text]) -> list[str]:
    """Those of some texts that lie over the next one once the figure is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    return [
        text.get_text()
        for text, one, other in zip(texts, boxes, boxes[1:], strict=False)
        if one.overlaps(other)
    ]


def test_names_of_models_do_not_overprint_each_other() -> None:
    names = [f"TerminalVelocityMatching eight_gaussians/{k}" for k in (1, 2, 3)]
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    rows = scatter_panels(points, {name: {1: points} for name in names})
    sides = [axis.yaxis.label for axis in rows.axes if axis.get_ylabel()]
    assert [side.get_text().split() for side in sides] == [name.split() for name in names]
    assert _overprinted(rows, sides) == []
    panels = sample_grid({name: torch.zeros(10, 1, 8, 8) for name in names}, columns=10)
    assert _overprinted(panels, [axis.title for axis in panels.axes[:3]]) == []


def test_a_panel_that_is_no_full_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 3 images, got 4 of model"):
        sample_grid({"model": torch.zeros(4, 1, 2, 2)}, columns=3)
    with pytest.raises(ValueError, match="at least one panel"):
        sample_grid({}, columns=3)


def test_the_curve_has_a_line_for_each_model_and_each_yardstick() -> None:
    reports = [report("mean flow"), report("shortcut", worse=0.1)]
    figure = quality_against_nfe(reports, metric="eval/1nn_accuracy")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["mean flow", "shortcut", "data (floor)", "Gaussian per class"]
    line = figure.axes[0].lines[1]
    assert list(line.get_xdata()) == [1, 2, 4, 8]
    assert list(line.get_ydata()) == pytest.approx([0.65, 0.6, 0.575, 0.5625])


def test_a_curve_of_a_metric_that_no_report_has_is_refused() -> None:
    with pytest.raises(ValueError, match="eval/fid"):
        quality_against_nfe([report("mean flow")], metric="eval/fid")


def test_scatter_panels_show_the_data_and_each_model(tmp_path: Path) -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    panels = {"mean flow": {1: points, 4: points}, "reflow": {4: points}}
    figure = scatter_panels(points, panels)
    save_png(figure, tmp_path / "points.png")
    assert len(figure.axes) == 2 * 3
    assert [len(axis.collections) for axis in figure.axes] == [1, 1, 1, 1, 0, 1]
    with pytest.raises(ValueError, match="at least one model"):
        scatter_panels(points, {})
