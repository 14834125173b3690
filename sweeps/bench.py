"""The bench: a trained trial, measured in any of the ways to use its weights."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

from ..methods.core.flow_map import FlowMap
from ..methods.core.sampler import AbstractSampler
from ..platform.configuration import compose
from ..platform.data.pairs import PairSet
from ..platform.data.source import Dataset
from ..platform.evaluation.benchmark import Benchmark
from ..platform.evaluation.latency import LATENCY, latency_of
from ..platform.evaluation.report import Measurement, Report
from ..platform.evaluation.sampling import samplers_at
from ..platform.experiment import Experiment
from ..platform.training.assembly import Assembly, assemble
from ..platform.training.errand import Progress, run_errand
from ..platform.training.measurement import averaged_map, generator_of, measured, served_map
from ..platform.training.trial import trained_on
from .objective import Number, Objectives, not_finite
from .posthoc import Timing
from .posthoc_setting import Setting
from .subtrial import Way


@final
@dataclass(frozen=True, kw_only=True)
class Used:
    """The weights of a trial, used in one way.

    Attributes:
        assembly: The things of the trial.
        flow_map: The network, filled.
        ema: Which weights these are; empty for the average that the experiment serves.
        sampler: Takes the place of the domain's own at its number of evaluations, or None.
        data: What was trained on.
    """

    assembly: Assembly
    flow_map: FlowMap
    ema: str
    sampler: AbstractSampler | None
    data: Dataset | PairSet

    @classmethod
    def of(
        cls, assembly: Assembly, setting: Setting, checkpoint: Path, *, folder: Path, data: Dataset
    ) -> "Used":
        """The weights of a trial in the way of a setting.

        Args:
            assembly: The trial with the setting's own overrides.
            setting: The setting.
            checkpoint: Its last checkpoint.
            folder: Its folder.
            data: Its data.
        """
        trained = trained_on(assembly, data)
        if setting.width is None:
            flow_map, ema = served_map(assembly, checkpoint, trained), ""
        else:
            flow_map = averaged_map(assembly, folder, setting.width)
            ema = f"relative width {setting.width:g}"
        return cls(
            assembly=assembly, flow_map=flow_map, ema=ema, sampler=setting.named, data=trained
        )


@final
@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures a trained trial.

    Attributes:
        overrides: The overrides of the trial.
        checkpoint: Its last checkpoint.
        folder: Its folder.
        timing: How latency is measured.
    """

    overrides: tuple[str, ...]
    checkpoint: Path
    folder: Path
    timing: Timing

    def reports(
        self,
        setting: Setting,
        benchmarks: Sequence[Benchmark],
        *,
        nfes: Sequence[int] = (),
        names: Set[str] | None = None,
    ) -> list[Report]:
        """Reports on one way to use the weights, with the same latencies in each.

        Args:
            setting: The way.
            benchmarks: The yardsticks, of one data set.
            nfes: Numbers of network evaluations; none for those of the experiment.
            names: Numbers that are wanted, beside latencies; None for all.
        """
        experiment = _experiment((*self.overrides, *setting.train))

        def measure(progress: Progress) -> list[Report]:
            del progress
            return self._reports(assemble(experiment), setting, benchmarks, nfes, names)

        return run_errand(measure, experiment, folder=self.folder)

    def _reports(
        self,
        assembly: Assembly,
        setting: Setting,
        benchmarks: Sequence[Benchmark],
        nfes: Sequence[int],
        names: Set[str] | None,
    ) -> list[Report]:
        experiment, data = assembly.experiment, benchmarks[0].dataset
        used = Used.of(assembly, setting, self.checkpoint, folder=self.folder, data=data)
        times = self._latencies(used, benchmarks[0], nfes or experiment.evaluation.nfes)
        found = [
            measured(
                experiment,
                used.flow_map,
                benchmark,
                nfes=nfes,
                ema=used.ema,
                sampler=used.sampler,
                names=names,
            )
            for benchmark in benchmarks
        ]
        return [replace(one, measurements=(*one.measurements, *times)) for one in found]

    def _latencies(
        self, used: Used, benchmark: Benchmark, nfes: Sequence[int]
    ) -> list[Measurement]:
        if not self.timing.repeats:
            return []
        size, told = self.timing.batch_size, benchmark.condition
        flow_map = generator_of(used.assembly.experiment, used.flow_map)
        return [
            latency_of(
                flow_map,
                sampler,
                nfe=nfe,
                shape=benchmark.dataset.shape,
                condition=None if told is None else told[torch.arange(size) % benchmark.count],
                batch_size=size,
                repeats=self.timing.repeats,
            )
            for nfe, sampler in samplers_at(flow_map.domain, nfes, named=used.sampler)
        ]


def ways_of(report: Report, objectives: Objectives) -> tuple[Way, ...]:
    """What a report says of quality and latency at each number of network evaluations.

    A quality that is no number is no way to use the weights.

    Args:
        report: The report.
        objectives: The numbers to improve; the first of quality is the one.
    """
    quality, numbers = objectives.quality, _numbers(report)
    if quality is None:
        return ()
    return tuple(
        Way(nfe=nfe, quality=numbers[quality.name, nfe], latency=numbers.get((LATENCY, nfe)))
        for nfe in report.nfes
        if (quality.name, nfe) in numbers and not not_finite([numbers[quality.name, nfe]])
    )


def _numbers(report: Report) -> dict[tuple[str, int | None], Number]:
    return {
        (one.name, one.nfe): Number(value=one.value, low=one.interval[0], high=one.interval[1])
        for one in reversed(report.measurements)  # the first one counts
    }


def _experiment(overrides: tuple[str, ...]) -> Experiment:
    return Experiment.from_dict(compose("train", overrides), overrides)
