"""Room on disk: a run whose files would not fit is refused before its first step."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from ..experiment import Training
from .assembly import Assembly
from .footprint import META, learning_of_shapes, without_fusion
from .learning import Learning

_PLAIN: Final = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.0}
_FLOAT32_BYTES: Final = 4


def check_room(assembly: Assembly, folder: Path, *, num_data: int) -> None:
    """Refuse a run whose checkpoints and weights have no room on the disk of its folder.

    Args:
        assembly: The things of the experiment.
        folder: Folder of the run, which may not be there yet.
        num_data: Examples of which a coupling may remember something.

    Raises:
        ValueError: If there is less room than the run writes at least.
    """
    needed = bytes_of_run(assembly, num_data=num_data) - _written(folder)
    disk = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise ValueError(
            f"run {folder.name} needs at least {_mib(needed)} of disk for its checkpoints and "
            f"weights, got {_mib(free)} free in {disk}: lower training.keep_checkpoints, or set "
            "ONESTEP_HOME to a folder with more"
        )


def bytes_of_run(assembly: Assembly, *, num_data: int) -> int:
    """Most bytes of tensors that a run has on disk at once, from their shapes alone.

    These are the checkpoints that are kept and one that is being written, the snapshots of averages
    and the registered weights. What some optimizers keep cannot be known from shapes, and is left
    out.

    Args:
        assembly: The things of the experiment.
        num_data: Examples of which a coupling may remember something.

    Returns:
        Bytes.
    """
    training, state = assembly.experiment.training, _learning(assembly).state()
    remembered = _bytes(state.pop("coupling"))  # of a single datum
    weights = list(_tensors(state["online"]))
    checkpoints = min(training.keep_checkpoints + 1, _saved(training))
    return (
        checkpoints * (_bytes(state) + num_data * remembered)
        + training.ema_snapshots * _bytes(state["power_averages"])
        + sum(weight.numel() for weight in weights) * _FLOAT32_BYTES
    )


def _learning(assembly: Assembly) -> Learning:
    assembly = replace(assembly, experiment=without_fusion(assembly.experiment))
    # Made with its values and then robbed of them: not every class can be made without.
    net = assembly.net().to(META)
    try:
        return learning_of_shapes(assembly, {}, net=net)
    except RuntimeError:  # torch.optim.ASGD and Adafactor ask for values at a step
        plain = replace(assembly.experiment, optimizer=_PLAIN)
        return learning_of_shapes(replace(assembly, experiment=plain), {}, net=net)


def _saved(training: Training) -> int:
    """Checkpoints that a run writes from its start to its end."""
    if not training.checkpoint_every:
        return 1
    return math.ceil(training.steps / training.every(training.checkpoint_every))


def _written(folder: Path) -> int:
    """Bytes of what an earlier attempt has left, which are replaced and not added to."""
    places = (folder / name for name in ("checkpoints", "ray", "snapshots"))
    return sum(file.stat().st_size for place in places for file in place.rglob("*"))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from _tensors(part)


def _bytes(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
