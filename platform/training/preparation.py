"""Preparation: what a run can be refused for is tried before anything of it is written."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, final

from ..data.source import Dataset
from ..data.stream_sample import check_fills, load
from ..registry.decoder import Decoder, decoder_of
from .assembly import Assembly, assemble, registry_of
from .derivative_choice import DerivativeChoice, is_auto
from .measurement import check_evaluation
from .pairing import Pairing
from .parent import with_versions
from .rehearsal import rehearse


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """An experiment whose parents, data and loss have been tried; nothing of it is written yet.

    Attributes:
        assembly: Its things; its parents are versions, and its derivative is chosen.
        dataset: Its data; of a stream, the examples that it is evaluated on.
        decoder: What makes images of its data, or None where they are none of latents.
        choice: The derivative that was chosen for it, or None where it names one or none.
        pairing: Where its pairs lie or will lie, or None where it asks for none.
    """

    assembly: Assembly
    dataset: Dataset
    decoder: Decoder | None
    choice: DerivativeChoice | None
    pairing: Pairing | None

    @classmethod
    def of(cls, assembly: Assembly, folder: Path) -> Self:
        """Try an experiment.

        Args:
            assembly: Its things; its model store answers.
            folder: Folder of the run, which may not be there yet.

        Returns:
            What was found and made.

        Raises:
            ValueError: If a parent or the data are refused, or the loss refuses them together.
        """
        experiment, registry = assembly.experiment, registry_of(assembly.experiment)
        assembly = replace(assembly, experiment=with_versions(experiment, registry))
        assembly.initial_net()
        assembly.frozen()
        training = experiment.training
        dataset = load(assembly.source, stream=training.stream)
        if training.stream:
            check_fills(assembly.source, dataset, training.batch_size)
        check_evaluation(experiment, dataset)
        decoder = decoder_of(dataset)
        choice = DerivativeChoice.of(assembly, folder) if is_auto(experiment) else None
        if choice is not None:
            assembly = assemble(choice.applied(assembly.experiment))
        pairing = None
        if assembly.learner.needs.pairs is not None:
            pairing = Pairing.of(assembly.experiment, dataset, registry=registry, folder=folder)
            assembly = replace(assembly, experiment=pairing.experiment)
        if not training.stream or training.batch_size <= len(dataset.train):
            rehearse(assembly, dataset if pairing is None else pairing.examples)
        return cls(
            assembly=assembly, dataset=dataset, decoder=decoder, choice=choice, pairing=pairing
        )
