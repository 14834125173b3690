"""Registration: what was trained and evaluated becomes a model of the registry."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from matplotlib.figure import Figure

from ...methods.core.flow_map import FlowMap
from ...methods.core.sampler import AbstractSampler
from ..build import build
from ..data.pairs import PairSet
from ..data.source import Dataset
from ..evaluation.comparison import Comparison, same_noise
from ..evaluation.report import Report
from ..experiment import Experiment, Node
from ..registry.decoder import Decoder
from ..registry.model import at_scale
from ..registry.record import ModelRecord
from ..registry.reference import ModelVersion
from ..registry.run import Run
from ..registry.store import Registry
from .assembly import Assembly
from .preparation import Preparation
from .run_note import RunNote


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run leaves behind.

    Attributes:
        reference: The registered model.
        run_id: MLflow run.
        folder: Folder of the run.
        report: Its evaluation.
    """

    reference: ModelVersion
    run_id: str
    folder: Path
    report: Report


def register(
    ready: Preparation,
    flow_map: FlowMap,
    report: Report,
    run: Run,
    folder: Path,
    *,
    pairs: PairSet | None,
    registry: Registry,
    revision: str,
    sampler: Node | None = None,
    sweep: str = "",
) -> Trained:
    """Register what was trained and evaluated, and write it down with its run.

    Args:
        ready: The experiment with its data.
        flow_map: The map that it serves.
        report: Its evaluation.
        run: Its MLflow run.
        folder: Folder of the run.
        pairs: What it was trained on, if it was pairs.
        registry: Where it is registered.
        revision: Revision of the code that trained it.
        sampler: Node of the sampler that takes the place of the domain's own at its number of
            evaluations, or None.
        sweep: The sweep whose best trial it is, and which one; empty for a run of no sweep.

    Returns:
        The registered model.
    """
    experiment, dataset, decoder = ready.assembly.experiment, ready.dataset, ready.decoder
    flow_map.cpu()  # the evaluation may have moved it to the workers' kind of device
    # Before the version: whatever fails here is repeated, and the run has one version still.
    figures = _figures(experiment, flow_map, dataset, report, decoder=decoder, sampler=sampler)
    _log(run, report, figures, step=experiment.training.steps)
    record = _record(ready.assembly, dataset, report, pairs, revision=revision)
    record = replace(record, sampler=sampler, sweep=sweep)
    reference = registry.register(
        record,
        flow_map.state_dict(),
        run_id=run.run_id,
        decoder=None if decoder is None else decoder.weights,
    )
    note = RunNote(run_id=run.run_id, data_digest=dataset.digest, model=str(reference))
    note.keep(folder)
    run.set_tags({"onestep.model": str(reference)})
    return Trained(reference=reference, run_id=run.run_id, folder=folder, report=report)


def _log(run: Run, report: Report, figures: Mapping[str, Figure], *, step: int) -> None:
    run.log_metrics(report.metrics(), step=step)
    run.log_json(json.loads(report.to_json()), "report.json")
    for name, figure in figures.items():
        run.log_figure(figure, f"figures/{name}")


def _figures(
    experiment: Experiment,
    flow_map: FlowMap,
    dataset: Dataset,
    report: Report,
    *,
    decoder: Decoder | None,
    sampler: Node | None,
) -> dict[str, Figure]:
    settings = experiment.evaluation
    shown = at_scale(flow_map, settings.guidance, model=experiment.name)
    drawn = same_noise(
        shown,
        dataset,
        settings.nfes,
        seed=settings.seed,
        decoder=decoder,
        sampler=None if sampler is None else build(sampler, AbstractSampler),
    )
    alone = Comparison(dataset=dataset, reports=(report,), samples={report.provenance.model: drawn})
    return alone.figures()


def _record(
    assembly: Assembly,
    dataset: Dataset,
    report: Report,
    pairs: PairSet | None,
    *,
    revision: str,
) -> ModelRecord:
    experiment = assembly.experiment
    parents = {
        role: reference
        for role, reference in experiment.to_dict()["parents"].items()
        if reference and role != "pairs"
    }
    if pairs is not None:
        parents["pairs"] = f"sha256:{pairs.digest}"
        parents["teacher"] = str(pairs.lineage["teacher"])
    return replace(
        record_of(assembly, dataset, ema=report.provenance.ema, revision=revision),
        parents=parents,
        metrics=report.metrics(),
        provenance=asdict(report.provenance),
        latents=dataset.latents,
    )


def record_of(assembly: Assembly, dataset: Dataset, *, ema: str, revision: str) -> ModelRecord:
    """What is recorded of any model, wherever it was trained.

    Args:
        assembly: The things of its experiment.
        dataset: The data.
        ema: Which weights these are.
        revision: Revision of the code.
    """
    experiment = assembly.experiment
    return ModelRecord(
        name=dataset.name,
        method=experiment.method,
        net=experiment.net,
        shape=dataset.shape,
        classes=dataset.told_classes,
        label_names=dataset.label_names if dataset.told_classes else (),
        domain=assembly.learner.domain.to_dict(),
        data_digest=dataset.digest,
        experiment=experiment.to_dict(),
        overrides=experiment.overrides,
        revision=revision,
        seed=experiment.seed,
        ema=ema,
    )
