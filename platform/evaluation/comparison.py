"""A comparison of registered models: one benchmark, one table, pictures from the same noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...methods.core.flow_map import FlowMap
from ...methods.core.sampler import AbstractSampler
from ..atomic import write_text
from ..data.source import Dataset, is_image
from ..registry.decoder import Decoder, load_decoder
from ..registry.model import dataset_of, load_generator
from ..registry.record import ModelRecord
from ..registry.store import Registry
from .evaluate import benchmark_of, evaluate_on
from .figures import quality_against_nfe, sample_grid, save_png, scatter_panels
from .named_sampler import own_sampler
from .report import Report
from .sampling import clipped, draw_samples, samplers_at
from .table import check_comparable, to_csv, to_markdown

_PER_CLASS: Final = 5
_POINTS: Final = 2000


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reports of several models on one benchmark, with samples from the same noise.

    Attributes:
        dataset: The data.
        reports: One for each model.
        samples: Samples of each model by number of evaluations.
    """

    dataset: Dataset
    reports: tuple[Report, ...]
    samples: Mapping[str, Mapping[int, Tensor]]

    @property
    def table(self) -> str:
        """The headline numbers as Markdown."""
        return to_markdown(self.reports)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write table.md, table.csv, quality.png, and samples.png where there is something to see.

        Args:
            folder: Where to, made if missing.

        Returns:
            The files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"table.md": self.table, "table.csv": to_csv(self.reports)}
        for name, text in texts.items():
            write_text(folder / name, text)
        figures = self.figures()
        for name, figure in figures.items():
            save_png(figure, folder / name)
        return tuple(folder / name for name in (*texts, *figures))

    def figures(self) -> dict[str, Figure]:
        """Samples of all models from the same noise, and quality against evaluations."""
        metric = "eval/1nn_deviation" if is_image(self.dataset.shape) else "eval/w2"
        shown = samples_side_by_side(self.dataset, self.samples)
        figures = {} if shown is None else {"samples.png": shown}
        return figures | {"quality.png": quality_against_nfe(self.reports, metric=metric)}


def samples_side_by_side(
    dataset: Dataset, samples: Mapping[str, Mapping[int, Tensor]]
) -> Figure | None:
    """Samples of several models in one figure: images in panels, or points beside the data.

    Args:
        dataset: The data.
        samples: Samples by model and by number of evaluations, all from the same noise.

    Returns:
        The figure; None of latents that nothing makes images of.
    """
    if not any(samples.values()):
        return None
    if not is_image(dataset.shape):
        points, _ = dataset.held_out.everything()
        return scatter_panels(points, samples)
    nfes = {nfe for by_nfe in samples.values() for nfe in by_nfe}
    panels = {
        f"{name}, {nfe} NFE": x
        for nfe in sorted(nfes & {1, 2}) or [min(nfes)]
        for name, by_nfe in samples.items()
        if (x := by_nfe.get(nfe)) is not None
    }
    return sample_grid(panels, columns=dataset.classes or 10)


def compare(
    registry: Registry,
    references: Sequence[str],
    *,
    home: Path,
    nfes: Sequence[int],
    samples: int,
    seed: int,
    device: torch.device,
) -> Comparison:
    """Measure registered models of one data set side by side.

    Args:
        registry: Where they are registered.
        references: Which models.
        home: Folder of the platform.
        nfes: Numbers of network evaluations.
        samples: At most this many samples in each draw.
        seed: Seed of the noise.
        device: Where the models compute.

    Returns:
        The comparison.

    Raises:
        ValueError: If the models were trained on different data.
    """
    models = _load(registry, references, device=device)
    first, record = _first(models)
    benchmark = benchmark_of(record, model=first, home=home, samples=samples, seed=seed)
    reports = {
        reference: evaluate_on(
            benchmark, flow_map, nfes=nfes, ema=record.ema, sampler=own_sampler(record)
        )
        for reference, (flow_map, record, _) in models.items()
    }
    return _side_by_side(models, benchmark.dataset, reports)


def gather(registry: Registry, reports: Mapping[str, Report]) -> Comparison:
    """Registered models side by side by the reports of their runs, without measuring them again.

    Args:
        registry: Where they are registered.
        reports: The report on each model, by its reference.

    Returns:
        The comparison.

    Raises:
        ValueError: If there are none, or they rest on different yardsticks.
    """
    check_comparable(tuple(reports.values()))
    models = _load(registry, tuple(reports), device=torch.device("cpu"))
    first, record = _first(models)
    return _side_by_side(models, dataset_of(record, model=first), reports)


_Models = Mapping[str, tuple[FlowMap, ModelRecord, Decoder | None]]


def _load(registry: Registry, references: Sequence[str], *, device: torch.device) -> _Models:
    return {
        reference: (
            *load_generator(registry, reference, device),
            load_decoder(registry, reference, device),
        )
        for reference in references
    }


def _first(models: _Models) -> tuple[str, ModelRecord]:
    """The first of models that were trained on the same data."""
    digests = {record.data_digest for _, record, _ in models.values()}
    if len(digests) > 1:
        raise ValueError(f"models to compare must have the same data, got {len(digests)} sets")
    first, (_, record, _) = next(iter(models.items()))
    return first, record


def _side_by_side(models: _Models, dataset: Dataset, reports: Mapping[str, Report]) -> Comparison:
    named, drawn = [], {}
    for reference, (flow_map, record, decoder) in models.items():
        report, name = reports[reference], f"{record.method_name} {reference}"
        provenance = replace(report.provenance, model=name)
        named.append(replace(report, provenance=provenance))
        drawn[name] = same_noise(
            flow_map,
            dataset,
            report.nfes,
            seed=provenance.seed,
            decoder=decoder,
            sampler=own_sampler(record),
        )
    return Comparison(dataset=dataset, reports=tuple(named), samples=drawn)


def same_noise(
    flow_map: FlowMap,
    dataset: Dataset,
    nfes: Sequence[int],
    *,
    seed: int,
    decoder: Decoder | None = None,
    sampler: AbstractSampler | None = None,
) -> dict[int, Tensor]:
    """Samples to look at: a few of each class, or points, the same noise for every model.

    Args:
        flow_map: The map.
        dataset: What it was trained on.
        nfes: Numbers of network evaluations; those that the map's domain does not allow are left
            out.
        seed: Seed of the noise.
        decoder: What makes images of latents, or None.
        sampler: Takes the place of the domain's own at its own number of evaluations, or None.

    Returns:
        Samples by number of evaluations; none of latents that nothing makes images of.
    """
    if dataset.latents is not None and decoder is None:
        return {}
    n = _POINTS if len(dataset.shape) == 1 else _PER_CLASS * (dataset.classes or 10)
    told = dataset.in_turn(n)
    return {
        nfe: draw_samples(
            flow_map,
            way,
            n=n,
            shape=dataset.shape,
            seed=seed,
            condition=told,
            finish=clipped if decoder is None else decoder,
        )
        for nfe, way in samplers_at(flow_map.domain, nfes, named=sampler)
    }
