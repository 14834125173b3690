"""Training for a benchmark: overrides become a network in this process, without a registry."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from onestep.methods.core.flow_map import FlowMap
from onestep.platform.configuration import compose
from onestep.platform.data.source import Dataset
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.measurement import served_map
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained experiment.

    Attributes:
        experiment: What was trained.
        flow_map: Its served average.
        dataset: What it learned.
        core_s: Seconds of processor time of the training.
    """

    experiment: Experiment
    flow_map: FlowMap
    dataset: Dataset
    core_s: float


def train(overrides: Sequence[str]) -> Trained:
    """Train on the CPU of this process.

    Args:
        overrides: Those of `onestep train`.

    Returns:
        What came out.
    """
    experiment = Experiment.from_dict(compose("train", overrides), tuple(overrides))
    assembly = assemble(experiment)
    dataset = assembly.source.load()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        last = work(
            experiment.to_dict(), place=Place(), reporter=MemoryReporter(), folder=Path(folder)
        )
        core_s = time.process_time() - start
        assert last is not None, "the only worker leads"
        flow_map = served_map(assembly, last, dataset)
    return Trained(experiment=experiment, flow_map=flow_map, dataset=dataset, core_s=core_s)
