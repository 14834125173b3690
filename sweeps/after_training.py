"""After the training: a trial is measured, in the setting that is best where some are tried.

Settings are chosen on held-out data and noise that have no part in what the trial is judged by:
the best of several noisy numbers is better than it will be again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from ..platform.atomic import write_text
from ..platform.evaluation.benchmark import Benchmark
from ..platform.evaluation.report import Report
from .bench import Bench, ways_of
from .objective import Objectives
from .posthoc import PostHoc, Timing
from .posthoc_search import Found, chosen_of, try_settings
from .posthoc_setting import Setting
from .record import AS_TRAINED_FILE
from .subtrial import SubTrial


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a trial is worth.

    Attributes:
        report: Its report, in the setting that is chosen.
        chosen: This setting, and what the trial gives as it was trained, as plain values; empty
            where no settings are tried.
    """

    report: Report
    chosen: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class AfterTraining:
    """What becomes of a trial when it has been trained.

    Attributes:
        objectives: The numbers to improve.
        posthoc: What is tried on its weights, or None.
        timing: How latency is measured.
        seed: Seed of the sweep.
        judging: The yardstick that trials are judged by.
        tuning: The one that settings are chosen by; None where none are tried.
    """

    objectives: Objectives
    posthoc: PostHoc | None
    timing: Timing
    seed: int
    judging: Benchmark
    tuning: Benchmark | None

    def judge(
        self,
        bench: Bench,
        *,
        number: int,
        is_whole: bool,
        training_s: float,
        known: Sequence[SubTrial],
        told: Callable[[SubTrial], None],
    ) -> Judged:
        """Measure a trial.

        Args:
            bench: The trained trial.
            number: Its number.
            is_whole: Whether it had the whole budget. Of others nothing is measured but the
                objectives, and of settings that are tried.
            training_s: Seconds of processor time of its training.
            known: What was tried on its weights before it was cut off.
            told: Told each new sub-trial.

        Returns:
            What it is worth.

        Raises:
            ValueError: If it can be used in no way.
        """
        asked = self.objectives.names
        names = None if is_whole else asked
        if self.posthoc is None or self.tuning is None:
            (report,) = bench.reports(Setting(), [self.judging], names=names)
            return Judged(report=report)
        yardsticks = [self.tuning, self.judging]

        def measured(setting: Setting) -> Found:
            reports = bench.reports(setting, yardsticks, nfes=self.objectives.nfes, names=asked)
            tuned, judged = (self.objectives.of(one, training_s=training_s) for one in reports)
            return Found(tuned=tuned, judged=judged, ways=ways_of(reports[1], self.objectives))

        tried = try_settings(
            self.posthoc,
            self.objectives,
            seed=self.seed,
            number=number,
            known=known,
            measure=measured,
            told=told,
        )
        best, first = chosen_of(tried, self.objectives), tried[0]
        setting = Setting.of(best.values, self.posthoc.base) if best.place else Setting()
        (report,) = bench.reports(setting, [self.judging], names=names)
        if best.place and not first.error:
            (plain,) = bench.reports(Setting(), [self.judging], names=names)
            write_text(bench.folder / AS_TRAINED_FILE, plain.to_json())
        chosen = {
            "place": best.place,
            "values": dict(best.values),
            "said": best.said,
            "as_trained": [[one.value, one.low, one.high] for one in first.judged],
        }
        return Judged(report=report, chosen=chosen)
