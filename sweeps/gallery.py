"""The gallery: what the leading trials of a sweep make of the same noise."""

from dataclasses import dataclass
from typing import final

from matplotlib.figure import Figure
from torch import Tensor

from ..platform.data.source import Dataset
from ..platform.evaluation.comparison import same_noise, samples_side_by_side
from ..platform.registry.decoder import decoder_of
from ..platform.registry.model import at_scale
from ..platform.training import checkpoint as checkpoints
from ..platform.training.assembly import assemble
from ..platform.training.worker import CHECKPOINTS
from .bench import Used
from .findings import Findings
from .posthoc_setting import setting_of
from .record import TrialRecord, folder_of_trial
from .trial import experiment_of


@final
@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Samples of the leading trials.

    Attributes:
        figure: They, side by side; None if there is nothing to see.
        missing: Why there are none of a trial, one sentence for each.
    """

    figure: Figure | None
    missing: tuple[str, ...]


def gallery_of(findings: Findings) -> Gallery:
    """Samples of the leading trials from the weights that are kept, on this machine's CPU.

    Args:
        findings: The sweep; another process may run it, and may delete weights meanwhile.

    Returns:
        The samples.
    """
    samples: dict[str, dict[int, Tensor]] = {}
    missing = []
    dataset: Dataset | None = None
    for trial in findings.leaders:
        try:
            if dataset is None:
                dataset = assemble(experiment_of(trial.overrides)).source.load()
            samples[f"trial {trial.number}"] = _drawn(trial, findings, dataset)
        except (ValueError, OSError) as error:
            missing.append(f"trial {trial.number}: {' '.join(str(error).split())}")
    figure = None if dataset is None else samples_side_by_side(dataset, samples)
    if samples and figure is None:
        missing.append("any sample: they are latents without a decoder")
    return Gallery(figure=figure, missing=tuple(missing))


def _drawn(trial: TrialRecord, findings: Findings, dataset: Dataset) -> dict[int, Tensor]:
    place = folder_of_trial(findings.folder, trial.number, rung=trial.rung)
    last = checkpoints.latest(place / CHECKPOINTS)
    if last is None:
        raise ValueError("its weights are not kept here")
    setting = setting_of(trial, findings.settings.posthoc)
    assembly = assemble(experiment_of((*trial.overrides, *setting.train)))
    settings = assembly.experiment.evaluation
    used = Used.of(assembly, setting, last, folder=place, data=dataset)
    return same_noise(
        at_scale(used.flow_map, settings.guidance, model=assembly.experiment.name),
        dataset,
        findings.objectives.nfes or settings.nfes,
        seed=settings.seed,
        decoder=decoder_of(dataset),
        sampler=used.sampler,
    )
