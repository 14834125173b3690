"""The evaluation of one flow map: its curve over network evaluations, with provenance."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.flow_map import FlowMap
from ...methods.core.guidance_scale import AtScale
from ...methods.core.noise import draw_noise
from ...methods.core.sampler import AbstractSampler
from ..registry.decoder import Decoder
from ..registry.model import dataset_of
from ..registry.record import ModelRecord
from .benchmark import Benchmark
from .bootstrap import mean_interval
from .decoded import decoded
from .metric import Space
from .report import Measurement, Provenance, Report
from .sampling import device_of, draw_samples, finish_of, samplers_at
from .score import Score
from .trajectory import (
    SEMIGROUP_ERROR,
    STRAIGHTNESS,
    is_measured,
    semigroup_error,
    straightness,
)

NFES: Final = (1, 2, 4, 8)
_TRAJECTORIES: Final = 128
_EXACT: Final = {SEMIGROUP_ERROR: 0.0}
"""What an exact map has. Its straightness is no such number: that depends on path and coupling."""


def benchmark_of(
    record: ModelRecord,
    *,
    model: str,
    home: Path,
    samples: int,
    seed: int,
    decoder: Decoder | None = None,
) -> Benchmark:
    """The yardstick for a registered model: that of the data that it was trained on.

    Args:
        record: Its record.
        model: What it is called, for messages.
        home: Folder of the platform.
        samples: Samples of a draw; at most as many as there are held-out and training data.
        seed: Seed of the samples.
        decoder: What makes images of its samples, where they are to be judged.

    Returns:
        The yardstick.

    Raises:
        ValueError: If the data are missing or not those that the model was trained on.
    """
    dataset = dataset_of(record, model=model)
    return Benchmark.prepare(
        dataset if decoder is None else decoded(dataset, decoder),
        home=home,
        samples=samples,
        seed=seed,
    )


def evaluate_on(
    benchmark: Benchmark,
    flow_map: FlowMap,
    *,
    model: str = "",
    nfes: Sequence[int] = NFES,
    ema: str = "",
    decoder: Decoder | None = None,
    sampler: AbstractSampler | None = None,
    names: Set[str] | None = None,
) -> Report:
    """Evaluate one map on a prepared benchmark.

    Args:
        benchmark: The yardstick.
        flow_map: The map, in evaluation mode.
        model: Reference or name of the model, for the report.
        nfes: Numbers of evaluations; those that the map's domain does not allow are left out.
        ema: Which weights these are, for the report.
        decoder: What makes images of its samples, where the benchmark is one of decoded data.
        sampler: Takes the place of the domain's own at its own number of evaluations, or None.
        names: Numbers that are wanted, and come with those that are found together with them; None
            for all.
    """
    measurements: list[Measurement] = []
    shape = benchmark.dataset.shape if decoder is None else decoder.latent
    for nfe, way in samplers_at(flow_map.domain, nfes, named=sampler):
        x = draw_samples(
            flow_map,
            way,
            n=benchmark.draws * benchmark.count,
            shape=shape,
            seed=benchmark.seed,
            condition=benchmark.asked,
            finish=finish_of(benchmark.dataset.latents) if decoder is None else decoder,
        )
        scores = benchmark.judge(x, names=names)
        measurements += measurements_of(benchmark, scores, nfe=nfe, sampler=str(way))
    measurements += _of_the_map(benchmark, flow_map, shape=shape, names=names)
    return Report(
        provenance=Provenance(
            model=model,
            data=benchmark.dataset.name,
            data_digest=benchmark.dataset.digest,
            features=benchmark.space.name,
            classifier_accuracy=benchmark.space.accuracy,
            count=benchmark.count,
            draws=benchmark.draws,
            seed=benchmark.seed,
            ema=ema,
            classes=benchmark.dataset.classes,
            guidance=flow_map.scale if isinstance(flow_map, AtScale) else None,
        ),
        measurements=tuple(measurements),
    )


def measurements_of(
    benchmark: Benchmark, scores: dict[str, Score], *, nfe: int | None, sampler: str
) -> list[Measurement]:
    """Scores of samples with floors, baselines and intervals beside them.

    Args:
        benchmark: The yardstick.
        scores: What ``Benchmark.judge`` gave.
        nfe: Evaluations of the map for one sample, or None if they vary.
        sampler: How the samples were made.
    """
    return [
        Measurement(
            name=name,
            value=score.value,
            interval=score.interval,
            count=score.count,
            draws=score.draws,
            space=str(score.space),
            nfe=nfe,
            sampler=sampler,
            floor=benchmark.floors[name],
            baselines={kind: row[name] for kind, row in benchmark.baselines.items()},
        )
        for name, score in scores.items()
    ]


def _of_the_map(
    benchmark: Benchmark,
    flow_map: FlowMap,
    *,
    shape: tuple[int, ...],
    names: Set[str] | None,
) -> list[Measurement]:
    n, device = _TRAJECTORIES, device_of(flow_map)
    noise = draw_noise(n, shape, seed=benchmark.seed)[0].to(device)
    told = benchmark.condition
    condition = None if told is None else told[torch.arange(n) % benchmark.count].to(device)
    found: dict[str, Float[Tensor, n]] = {}
    for name, ask in ((STRAIGHTNESS, straightness), (SEMIGROUP_ERROR, semigroup_error)):
        if is_measured(name, flow_map.domain) and (names is None or name in names):
            found[name] = ask(flow_map, noise, condition)
    return [
        Measurement(
            name=name,
            value=values.mean().item(),
            interval=mean_interval(values.cpu(), seed=benchmark.seed),
            count=n,
            draws=1,
            space=str(Space.DATA),
            floor=_EXACT.get(name),
        )
        for name, values in found.items()
    ]
