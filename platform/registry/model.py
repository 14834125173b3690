"""From a reference to a network that answers: for sampling, evaluation, teachers and serving."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ...methods.core.condition import UNGUIDED, Condition
from ...methods.core.flow_map import Domain, FlowMap
from ...methods.core.guidance_scale import AtScale
from ...methods.core.method import AbstractLearner
from ...methods.nets.condition_embedding import conditions_of
from ..build import build
from ..data.source import AbstractSource, Dataset
from ..data.stream_sample import load
from ..data.tokenizer import Tokenizer
from .errors import ArchitectureMismatch
from .record import ModelRecord
from .reference import ModelVersion
from .trust import check_trusted

_LOG: Final = logging.getLogger(__name__)

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and most trials need none
    from .store import LoadedModel, Registry


def load_flow_map(
    registry: "Registry", reference: str | ModelVersion, device: torch.device | str = "cpu"
) -> tuple[FlowMap, ModelRecord]:
    """Build the network of a registered model and fill in its weights.

    Args:
        registry: Where the model is registered.
        reference: Version or alias.
        device: Where the network is to be.

    Returns:
        The network, in evaluation mode and with frozen parameters, and the record of the model.
    """
    model = registry.load(reference)
    return flow_map_of(model).to(device), model.record


def flow_map_of(model: "LoadedModel") -> FlowMap:
    """The network of a model that has been loaded, in evaluation mode and with frozen parameters.

    Args:
        model: The model.
    """
    flow_map = build_flow_map(model.record)
    fill(flow_map, model.weights, model=str(model.reference))
    return flow_map.eval().requires_grad_(False)


def load_generator(
    registry: "Registry",
    reference: str | ModelVersion,
    device: torch.device | str = "cpu",
    *,
    guidance: float | None = None,
) -> tuple[FlowMap, ModelRecord]:
    """A registered model as it is sampled and measured: at one scale, if it takes one.

    Args:
        registry: Where the model is registered.
        reference: Version or alias.
        device: Where the network is to be.
        guidance: The scale; by default the one at which its training evaluated it.

    Returns:
        The map, in evaluation mode and with frozen parameters, and the record of the model.

    Raises:
        ValueError: If a scale is named that its training has not drawn, or one for a model that
            takes none.
    """
    flow_map, record = load_flow_map(registry, reference, device)
    scale = own_scale(record) if guidance is None else guidance
    _check_drawn(record, guidance, model=str(reference))
    return at_scale(flow_map, scale, model=str(reference)), record


def own_scale(record: ModelRecord) -> float:
    """The guidance scale at which a model's training evaluated it; 1 where it takes none."""
    return float(record.experiment.get("evaluation", {}).get("guidance", UNGUIDED))


def drawn_scales(record: ModelRecord) -> tuple[float, float] | None:
    """The lowest and the highest guidance scale that a model's training told it.

    Args:
        record: Record of the model.

    Returns:
        Both; None where its method draws none, or cannot be asked, as one of another project.
    """
    if record.origin:
        return None
    try:
        check_trusted(record.method, what=f"the method of a model {record.name!r}")
        return build(record.method, AbstractLearner).needs.scales
    except ValueError as error:
        _LOG.warning("the guidance scales that a model was trained with are not known: %s", error)
        return None


def at_scale(flow_map: FlowMap, scale: float, *, model: str) -> FlowMap:
    """A map at one guidance scale.

    Args:
        flow_map: The map.
        scale: The scale; 1 leaves a map that takes none as it is.
        model: What it is called, for the message.

    Raises:
        ValueError: If the scale is below 1, or another than 1 for a map that takes none.
    """
    if "guidance" in conditions_of(flow_map):
        return AtScale(flow_map, scale=scale).eval()
    if scale != UNGUIDED:
        raise ValueError(f"{model} takes no guidance scale as an input, got guidance {scale:g}")
    return flow_map


def check_scale(record: ModelRecord, guidance: float | None, *, model: str) -> None:
    """Refuse a guidance scale before anything is loaded.

    Args:
        record: Record of the model.
        guidance: The scale that is asked for, or None.
        model: What the model is called, for the message.

    Raises:
        ValueError: If its training has not drawn it, or the model takes none.
    """
    if guidance is not None:
        with torch.device("meta"):
            at_scale(build_flow_map(record), guidance, model=model)
        _check_drawn(record, guidance, model=model)


def _check_drawn(record: ModelRecord, guidance: float | None, *, model: str) -> None:
    if guidance is None or (scales := drawn_scales(record)) is None:
        return
    low, high = scales
    if not low <= guidance <= high:
        raise ValueError(
            f"guidance must be one of the scales that {model} was trained with, "
            f"{low:g}..{high:g}, got {guidance:g}"
        )


def build_flow_map(record: ModelRecord) -> FlowMap:
    """The network that a record describes, with fresh weights."""
    check_trusted(record.net, what=f"the network of a model {record.name!r}")
    return build(
        record.net,
        FlowMap,
        shape=record.shape,
        classes=record.classes,
        domain=Domain.from_dict(dict(record.domain)),
    )


def fill(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    model: str,
    new: frozenset[str] = frozenset(),
) -> None:
    """Put weights into a network that has exactly these.

    Args:
        net: Network to fill.
        weights: Weights by name.
        model: Where they come from, for the message.
        new: Names that may be missing, all of them or none, and then stay as they are.

    Raises:
        ArchitectureMismatch: If a weight is missing, unexpected or of another shape.
    """
    expected = net.state_dict()
    if not new & set(weights):
        weights = {**weights, **{name: expected[name] for name in new}}
    for name, tensor in expected.items():
        if name not in weights:
            raise ArchitectureMismatch(
                f"{model} belongs to another network: it has no weight {name!r}"
            )
        if weights[name].shape != tensor.shape:
            raise ArchitectureMismatch(
                f"{model} belongs to another network: weight {name!r} has shape "
                f"{tuple(weights[name].shape)}, the network {tuple(tensor.shape)}"
            )
    for name in weights:
        if name not in expected:
            raise ArchitectureMismatch(
                f"{model} belongs to another network: it has the unknown weight {name!r}"
            )
    net.load_state_dict(dict(weights))


def source_of(record: ModelRecord, *, model: str) -> AbstractSource:
    """The source of the data that a model was trained on; nothing of it is loaded.

    Args:
        record: Record of the model.
        model: What the model is called, for the message.
    """
    node = record.experiment["data"]
    check_trusted(node, what=f"the data of {model}")
    return build(node, AbstractSource)


def captioned(record: ModelRecord, captions: Sequence[str], *, model: str) -> Condition:
    """What a model is asked by captions.

    Args:
        record: Record of the model.
        captions: Words that the model knows; an empty caption asks for nothing.
        model: What the model is called, for the message.

    Returns:
        One condition for each caption.

    Raises:
        ValueError: If the model takes no captions, or does not know a word.
    """
    words = source_of(record, model=model).vocabulary
    if not words:
        raise ValueError(f"{model} takes no captions, got {captions[0]!r}")
    return Condition(tokens=Tokenizer(words=words).encode(captions))


def dataset_of(record: ModelRecord, *, model: str) -> Dataset:
    """The data that a model was trained on, or what it keeps of a stream, loaded and checked.

    Args:
        record: Record of the model.
        model: What the model is called, for the message.

    Returns:
        The set.

    Raises:
        ValueError: If the data here are not those.
    """
    source = source_of(record, model=model)
    stream: bool = record.experiment["training"]["stream"]
    dataset = load(source, stream=stream)
    if dataset.digest != record.data_digest:
        raise ValueError(
            f"{model} was trained on data {record.data_digest[:12]}..., "
            f"the data here are {dataset.digest[:12]}..."
        )
    return dataset
