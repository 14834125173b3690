"""Ended runs: a run that is asked for again by its name, and has registered its model already."""

from pathlib import Path

from ..data.stream_sample import load
from ..experiment import Experiment
from ..registry.record import ModelRecord
from .assembly import assemble, home_of, parts_of, registry_of
from .derivative_choice import DerivativeChoice, is_auto
from .parent import with_versions
from .run_note import RunNote


def model_of_ended(experiment: Experiment) -> str | None:
    """The model of a named run that has ended, so that it need not be trained again.

    Args:
        experiment: What the run is to train.

    Returns:
        The reference of its model, or None where the run has no name or has not ended.

    Raises:
        ValueError: If the run that has ended trained something else.
    """
    if not experiment.run:
        return None
    folder, registry = home_of(experiment).runs / experiment.run, registry_of(experiment)
    note = RunNote.of(folder)
    if note is None:
        return None
    model = note.registered(registry)
    if model is None:
        return None
    entry = registry.entry(model)
    if entry.run_id != note.run_id:
        raise ValueError(
            f"run {experiment.run} has ended and registered {model} in another store; choose "
            "another name by run=..., or that store by storage.tracking_uri=..."
        )
    record = entry.record
    asked = with_versions(experiment, registry)
    if is_auto(asked):
        asked = DerivativeChoice.of(assemble(asked), folder).applied(asked)
    data = load(parts_of(asked).source, stream=asked.training.stream)
    if data.digest != record.data_digest or not _is_same(asked, record):
        what = "data" if data.digest != record.data_digest else "settings"
        raise ValueError(
            f"run {experiment.run} has ended with other {what} and registered {model}; choose "
            "another name by run=..."
        )
    return model


def _is_same(asked: Experiment, record: ModelRecord) -> bool:
    """Whether an experiment would train the model of a record on the same data."""
    trained, given = Experiment.from_dict(record.experiment), asked.parents.pairs
    if given and str(Path(given).absolute()) != trained.parents.pairs:
        return False
    ours, theirs = (
        (
            parts_of(each).recipe(record.data_digest),
            each.training.ema_served,
            None if parts_of(each).learner.needs.pairs is None else each.pairs,
        )
        for each in (asked, trained)
    )
    return ours == theirs
