"""Training, sampling and evaluating from Python: what the command line does, in ten lines.

from onestep.platform.api import load, train

model = train("method=mean_flow", "data=digits", "training.samples=200000")
sevens = model.sample(16, labels=7)
print(model.evaluate(nfes=(1, 2)).metrics())
champion = load("champion")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from ..methods.core.sampler import AbstractSampler
from .configuration import forget
from .device import AUTO, device_named
from .evaluation.evaluate import NFES, benchmark_of, evaluate_on
from .evaluation.named_sampler import own_sampler
from .evaluation.report import Report
from .evaluation.sampling import draw_samples, finish_of, samplers_at
from .experiment import ALL_SAMPLES
from .home import Home
from .registry.decoder import Decoder, load_decoder
from .registry.model import captioned, load_generator
from .registry.record import ModelRecord
from .registry.store import Registry
from .training.sequence import StageSequence
from .training.watcher import Console, Silence


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A registered model.

    Attributes:
        reference: Its version, such as digits/3.
        record: What the registry knows about it.
        flow_map: Its network, in evaluation mode and frozen; it may be moved to another device.
        decoder: What makes images of its samples where they are latents, or None.
    """

    reference: str
    record: ModelRecord
    flow_map: FlowMap
    decoder: Decoder | None = None

    @classmethod
    def load(
        cls,
        reference: str,
        *,
        tracking_uri: str | None = None,
        device: str = AUTO,
        guidance: float | None = None,
    ) -> Self:
        """A model of the registry.

        Args:
            reference: Version or alias, such as digits/3 or champion.
            tracking_uri: MLflow store; that of the home by default.
            device: Where it computes: cpu, cuda or cuda:N; by default a GPU where there is one.
            guidance: Scale of a model that takes one, at least 1; by default the one at which its
                training evaluated it.

        Raises:
            ValueError: If there is no such model or device, or the model takes no scale.
        """
        place = device_named(device)
        registry = Registry.at(Home.here(tracking_uri=tracking_uri))
        version = str(registry.entry(reference).reference)
        flow_map, record = load_generator(registry, version, place, guidance=guidance)
        decoder = load_decoder(registry, version, place)
        return cls(reference=version, record=record, flow_map=flow_map, decoder=decoder)

    def sample(
        self,
        n: int,
        *,
        nfe: int | None = None,
        sampler: AbstractSampler | None = None,
        labels: int | Sequence[int] | None = None,
        caption: str | None = None,
        seed: int = 0,
    ) -> Float[Tensor, " n *d"]:
        """Samples; one depends on its seed, number, label or caption alone, up to rounding.

        Args:
            n: How many, at least 1.
            nfe: Network evaluations of each, as far as the model's domain allows; 1 by default.
            sampler: A sampler with its own steps, such as Renoise; the domain's own by default.
            labels: One class for all or one for each; all classes in turn by default.
            caption: Caption of all, for a model of captions; none by default.
            seed: Seed of the noise, at least 0.

        Returns:
            The samples on the CPU, images in [-1, 1]; latents where nothing decodes them.

        Raises:
            ValueError: If a number is out of range, the model does not know the caption, the
                domain has no sampler of so many evaluations or does not allow the one that is
                given, or both are given.
        """
        if n < 1 or seed < 0:
            raise ValueError(f"samples need n >= 1 and seed >= 0, got {n} and {seed}")
        condition = self._condition(n, labels)
        if caption is not None:
            condition = captioned(self.record, [caption] * n, model=self.reference)
        if sampler is None:
            wanted = [1 if nfe is None else nfe]
            own = own_sampler(self.record)
            ((_, sampler),) = samplers_at(self.flow_map.domain, wanted, named=own)
        elif nfe is not None:
            raise ValueError(
                f"give either nfe or a sampler with its own steps, got both: nfe={nfe}"
            )
        return draw_samples(
            self.flow_map,
            sampler,
            n=n,
            shape=self.record.shape,
            seed=seed,
            condition=condition,
            finish=finish_of(self.record.latents) if self.decoder is None else self.decoder,
        )

    def evaluate(
        self, *, nfes: Sequence[int] = NFES, samples: int = ALL_SAMPLES, seed: int = 7
    ) -> Report:
        """Measure the model against held-out data, beside floors and trivial baselines.

        Args:
            nfes: Numbers of evaluations; those that the domain does not allow are left out.
            samples: Samples of a draw; at most as many as there are held-out and training data.
            seed: Seed of the samples.

        Raises:
            ValueError: If the data are missing or not those that the model was trained on.
        """
        benchmark = benchmark_of(
            self.record,
            model=self.reference,
            home=Home.here().root,
            samples=samples,
            seed=seed,
        )
        return evaluate_on(
            benchmark,
            self.flow_map,
            model=self.reference,
            nfes=nfes,
            ema=self.record.ema,
            sampler=own_sampler(self.record),
        )

    def _condition(self, n: int, labels: int | Sequence[int] | None) -> Condition | None:
        classes = self.record.classes
        if labels is None:
            return Condition(label=torch.arange(n) % classes) if classes else None
        if not classes:
            raise ValueError(f"{self.reference} has no classes, got labels {labels}")
        wanted = [labels] * n if isinstance(labels, int) else list(labels)
        if len(wanted) != n or min(wanted) < 0 or max(wanted) >= classes:
            raise ValueError(
                f"labels must be one class or {n} of them in 0..{classes - 1}, got {labels}"
            )
        return Condition(label=torch.tensor(wanted))


load = Model.load


def train(*overrides: str, progress: bool = True) -> Model:
    """Train, evaluate and register as `onestep train` does.

    Args:
        *overrides: What would stand on the command line; with stages=... all of them are trained
            but those that have ended under the name of run=....
        progress: Whether bars and lines are printed.

    Returns:
        The model, of the last stage where there are several.

    Raises:
        ValueError: If anything in the experiment is refused, before its first step.
    """
    forget()  # between two trainings of a notebook files may have changed
    sequence = StageSequence.from_overrides(overrides)
    *_, experiment = sequence.check()
    *_, last = sequence.run(Console() if progress else Silence()).values()
    return Model.load(str(last.reference), tracking_uri=experiment.storage.tracking_uri)
