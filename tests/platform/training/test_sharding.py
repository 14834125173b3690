"""What docs/derivatives.md says of FSDP2 and of activation checkpointing, tried."""

from collections.abc import Callable
from typing import Final

import pytest
import torch
from torch.utils.checkpoint import CheckpointError

from onestep.methods.core.flow_map import FlowMap
from onestep.methods.nets.mlp import MLP
from onestep.tests.platform.training.group import run_group
from onestep.tests.platform.training.recomputed import Recomputed
from onestep.tests.platform.training.sharding import (
    WAYS,
    WITH_GRAPH,
    Result,
    learn,
    network,
    sharded,
)

# Sharding.


@pytest.fixture(scope="module")
def halves() -> list[tuple[dict[str, Result], str]]:
    found: list[tuple[dict[str, Result], str]] = run_group(sharded, 2)
    return found


@pytest.mark.parametrize("way", [*WAYS, WITH_GRAPH])
def test_a_sharded_network_has_the_derivative_and_the_gradient_of_a_whole_one(
    way: str, halves: list[tuple[dict[str, Result], str]]
) -> None:
    derivative, gradients = learn(network(), way)
    got = torch.cat([found[way][0] for found, _ in halves])
    torch.testing.assert_close(got, derivative, atol=1e-12, rtol=0.0)
    for found, _ in halves:
        for mine, want in zip(found[way][1], gradients, strict=True):
            torch.testing.assert_close(mine, want, atol=1e-12, rtol=0.0)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3


def test_a_sharded_network_cannot_be_copied(
    halves: list[tuple[dict[str, Result], str]],
) -> None:
    assert all("does not support deepcopy" in refusal for _, refusal in halves)


# Recomputing.


def recomputing(*, is_reentrant: bool = False) -> FlowMap:
    net = network()
    assert isinstance(net, MLP)
    for place, block in enumerate(net.blocks):
        net.blocks[place] = Recomputed(block, is_reentrant=is_reentrant)
    return net


@pytest.mark.parametrize("way", WAYS)
def test_recomputed_activations_change_no_bit_of_a_derivative_without_a_graph(way: str) -> None:
    net = recomputing()
    got, want = learn(net, way), learn(network(), way)
    assert torch.equal(got[0], want[0])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got[1], want[1], strict=True))
    calls = [module.calls for module in net.modules() if isinstance(module, Recomputed)]
    assert calls == [3, 3], "a prediction, a derivative, and the prediction again"


REFUSED: Final[list[tuple[str, Callable[[], FlowMap], type[RuntimeError], str]]] = [
    (WITH_GRAPH, recomputing, CheckpointError, "number of tensors"),
    (WITH_GRAPH, lambda: recomputing(is_reentrant=True), RuntimeError, "setup_context"),
    (
        "without a graph",
        lambda: recomputing(is_reentrant=True),
        NotImplementedError,
        "jvp function",
    ),
]


@pytest.mark.parametrize(("way", "make", "kind", "reason"), REFUSED)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_what_cannot_be_recomputed_is_refused(
    way: str, make: Callable[[], FlowMap], kind: type[RuntimeError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        learn(make(), way)
