"""The check of post-hoc settings: each is tried on the maps that trials will train."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..methods.core.flow_map import Domain
from ..platform.configuration import compose
from ..platform.evaluation.latency import LATENCY
from ..platform.evaluation.named_sampler import is_of_sampler
from ..platform.experiment import Experiment
from ..platform.training.assembly import Assembly, assemble
from ..platform.training.power_average import PowerProfile
from .condition import Scalar
from .objective import COSTS
from .posthoc import PostHoc
from .posthoc_setting import OF_TRAIN, WIDTH, Setting, is_mid_time, is_sampler_key
from .settings import SweepSettings

_KEY: Final = "sweep.posthoc"
_SERVED: Final = "training.ema_served"


def check_posthoc(settings: SweepSettings, trials: Sequence[Assembly]) -> None:
    """Refuse post-hoc settings that trials cannot be used in, or that change nothing.

    Args:
        settings: The sweep.
        trials: Trials at the outermost values of its space.

    Raises:
        ValueError: If a key needs a training, a trained map does not take a value, or the first
            objective does not depend on any.
    """
    for label, one in settings.objectives.by_label.items():
        if one.name == LATENCY and not settings.latency.repeats:
            raise ValueError(
                f"sweep.objectives.{label} is a latency, which sweep.latency.repeats=0 leaves out"
            )
    posthoc, lead = settings.posthoc, settings.objectives.lead
    if posthoc is None:
        return
    if lead.name in COSTS:
        raise ValueError(
            f"{_KEY} chooses by the first objective, on which nothing after a training has a "
            f"bearing, got {lead}: name another one first"
        )
    for key in posthoc.space.dimensions:
        _check_key(key, settings)
    for text in posthoc.base:
        if not is_of_sampler(text):
            raise ValueError(f"{_KEY}.base takes overrides of sampler, got {text}")
    for key, point in posthoc.space.edges:
        for trial in trials:
            try:
                _try(posthoc, point, trial, settings.objectives.nfes)
            except ValueError as error:
                raise ValueError(f"{_KEY}.space[{key}] reaches {point[key]!r}: {error}") from error


def _check_key(key: str, settings: SweepSettings) -> None:
    if key != WIDTH and key not in OF_TRAIN and not is_sampler_key(key) and not is_mid_time(key):
        allowed = (WIDTH, *OF_TRAIN, "sampler", "sampler.*")
        raise ValueError(
            f"{_KEY}.space cannot hold {key}: what is tried after a training is one of "
            f"{', '.join(allowed)}; a key of the training belongs in sweep.space"
        )
    if key in settings.space.parts:
        raise ValueError(f"{key} stands both in sweep.space and in {_KEY}.space")


def _try(
    posthoc: PostHoc, point: Mapping[str, Scalar], trial: Assembly, nfes: Sequence[int]
) -> None:
    setting = Setting.of(point, posthoc.base)
    training = trial.experiment.training
    if setting.width is not None:
        PowerProfile.of_width(setting.width)
        if not training.ema_snapshots:
            raise ValueError(
                "an average of another width is made from snapshots, of which the training keeps "
                "none: add training.ema_snapshots=16"
            )
        if _SERVED in point:
            raise ValueError(
                f"{_SERVED} has no effect beside {WIDTH}, which makes an average of its own"
            )
    if setting.train:
        _assembled(trial.experiment, setting)
    sampler = setting.named
    if sampler is None:
        return
    domain: Domain = trial.learner.domain
    sampler.check(domain)
    found = sampler.evaluations(domain)
    if found not in nfes:
        raise ValueError(
            f"{sampler} takes {found or 'any number of'} network evaluations, and no objective is "
            f"taken there, only at {', '.join(map(str, nfes)) or 'none'}"
        )


def _assembled(experiment: Experiment, setting: Setting) -> Assembly:
    overrides = (*experiment.overrides, *setting.train)
    return assemble(Experiment.from_dict(compose("train", overrides), overrides))
