"""From a reference to a network that answers: for sampling, evaluation, teachers and serving."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...methods.core.condition import Condition
from ...methods.core.flow_map import Domain, FlowMap
from ..build import build
from ..data.source import AbstractSource, Dataset
from ..data.stream_sample import load
from ..data.tokenizer import Tokenizer
from .errors import ArchitectureMismatch
from .record import ModelRecord
from .reference import ModelVersion
from .store import Registry
from .trust import check_trusted


def load_flow_map(
    registry: Registry, reference: str | ModelVersion, device: torch.device | str = "cpu"
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
    flow_map = build_flow_map(model.record)
    fill(flow_map, model.weights, model=str(model.reference))
    return flow_map.to(device).eval().requires_grad_(False), model.record


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


def fill(net: nn.Module, weights: Mapping[str, Tensor], *, model: str) -> None:
    """Put weights into a network that has exactly these.

    Args:
        net: Network to fill.
        weights: Weights by name.
        model: Where they come from, for the message.

    Raises:
        ArchitectureMismatch: If a weight is missing, unexpected or of another shape.
    """
    expected = net.state_dict()
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
