"""One trial in a process of Ray Tune: compose the overrides, train, measure, report."""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch
from ray import tune

from ..platform.configuration import compose
from ..platform.evaluation.benchmark import Benchmark
from ..platform.evaluation.report import Report
from ..platform.experiment import Experiment
from ..platform.password import hide_passwords
from ..platform.training.trial import measure, run_trial
from .record import ERROR, OVERRIDES, REPORT, SAMPLES
from .searcher import HIGH, LOW, OBJECTIVE
from .settings import Objective

LOSS: Final = "loss"
_PAUSE_S: Final = 2.0


@final
class TuneReporter:
    """Sends progress to Ray Tune now and then, and the metric of each checkpoint on the way.

    Args:
        experiment: What is trained.
        metric: The number to improve.
        benchmark: The yardstick.
        is_staged: Whether checkpoints before the last are measured.
    """

    def __init__(
        self, experiment: Experiment, metric: Objective, benchmark: Benchmark, *, is_staged: bool
    ) -> None:
        self._experiment, self._metric, self._benchmark = experiment, metric, benchmark
        self._is_staged = is_staged
        self._sent_at = 0.0

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Take metrics or a checkpoint."""
        training = self._experiment.training
        if step == training.steps:
            return
        samples = step * training.batch_size
        if checkpoint is not None and self._is_staged:
            nfes = () if self._metric.nfe is None else (self._metric.nfe,)
            report = measure(self._experiment, checkpoint, self._benchmark, nfes=nfes)
            tune.report(result_of(report, self._metric, samples))
        elif "loss/online" in metrics and time.monotonic() - self._sent_at >= _PAUSE_S:
            self._sent_at = time.monotonic()
            tune.report({SAMPLES: samples, LOSS: metrics["loss/online"]})

    def close(self) -> None:
        """Nothing is held back."""


def result_of(report: Report, metric: Objective, samples: int) -> dict[str, float | int]:
    """What Ray Tune is told about a measured checkpoint.

    Args:
        report: The measurements.
        metric: The number to improve.
        samples: Samples seen.

    Returns:
        The number with its interval.
    """
    found = report.find(metric.name, nfe=metric.nfe)
    low, high = found.interval
    return {SAMPLES: samples, OBJECTIVE: found.value, LOW: low, HIGH: high}


def experiment_of(overrides: tuple[str, ...]) -> Experiment:
    """The experiment that ``onestep train`` composes from the same overrides."""
    return Experiment.from_dict(compose("train", overrides), overrides)


def try_overrides(
    config: Mapping[str, Any],
    *,
    metric: Mapping[str, Any],
    is_staged: bool,
    base: tuple[str, ...],
    benchmark: Benchmark,
    environment: Mapping[str, str],
) -> None:
    """Run one trial; Ray Tune calls this.

    Args:
        config: What the searcher suggested.
        metric: The number to improve, as plain values.
        is_staged: Whether checkpoints before the last are measured.
        base: Overrides of every trial.
        benchmark: The yardstick.
        environment: Where the home and the stores are.

    Raises:
        Exception: Whatever the trial did not foresee.
    """
    os.environ.update(environment)
    objective = Objective(**metric)
    try:
        experiment = experiment_of((*base, *config[OVERRIDES]))
        torch.set_num_threads(max(1, experiment.training.threads))
        reporter = TuneReporter(experiment, objective, benchmark, is_staged=is_staged)
        with tempfile.TemporaryDirectory() as folder:
            report = run_trial(experiment, reporter, folder=Path(folder), benchmark=benchmark)
        samples = experiment.training.steps * experiment.training.batch_size
        row = result_of(report, objective, samples)
        tune.report({**row, REPORT: json.dumps(json.loads(report.to_json()))})
    except (ValueError, OSError) as error:
        # A diverged or refused trial is a result; the sweep goes on.
        tune.report({ERROR: _sentence(error)})
    except Exception as error:
        tune.report({ERROR: _sentence(error)})
        raise


def _sentence(error: Exception) -> str:
    return hide_passwords(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
