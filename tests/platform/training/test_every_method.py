"""What holds for every method that ships: precision and compilation."""

from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.learning import Learning
from onestep.platform.training.place import Place
from onestep.platform.training.stand_in import stand_in
from onestep.tests.platform.training.group import distance

ROOT: Final = Path(__file__).resolve().parents[3]
METHODS: Final = sorted(path.stem for path in (ROOT / "methods/conf/method").glob("*.yaml"))
STEPS: Final = 40
TURNS: Final = 5
"""Steps within which every player of every game moves."""
OF_EACH_KIND: Final = ["mean_flow", "self_distillation", "dmd2"]
"""A derivative without its graph, one with it, and a game."""
NETS: Final = {
    "mlp": ["net=mlp_digits", "net.width=16", "net.depth=1", "net.embedding_width=8"],
    "unet": ["net=unet_tiny", "net.width=8", "net.head_width=8", "net.embedding_width=8"],
    "dit": ["net=dit_tiny", "net.patch=4", "net.width=16", "net.depth=1", "net.head_width=8"],
}
"""Networks of some thousand weights."""


def experiment(method: str, *, net: str = "mlp", **training: Any) -> dict[str, Any]:
    """Labelled images for a small network; what a method needs is stood in."""
    length = ["training.batch_size=32", f"training.samples={32 * STEPS}", "training.threads=1"]
    values = compose("train", ["data=digits", f"method={method}", *NETS[net], *length])
    values.pop("stages", None)
    values["training"] |= training
    return values


def learning_of(method: str, *, step: int, net: str = "mlp", **training: Any) -> Learning:
    found = stand_in(Experiment.from_dict(experiment(method, net=net, **training)), Place())
    found.step = step
    return found


# Half precision.


def listen(net: nn.Module) -> list[tuple[bool, bool]]:
    """Whether each evaluation of a network is rounded to half, and is a derivative."""
    heard: list[tuple[bool, bool]] = []

    def hear(net: nn.Module, given: object, u: Tensor) -> None:
        is_half = torch.is_autocast_enabled("cpu")
        heard.append((is_half, forward_ad.unpack_dual(u).tangent is not None))

    net.register_forward_hook(hear)
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_half_precision_is_differentiated_along_paths_in_single(method: str) -> None:
    learning = learning_of(method, step=STEPS // 2, precision="bfloat16")
    heard = listen(learning.nets.online)
    for _ in range(TURNS):
        logs = learning.advance()
        assert all(value.dtype == torch.float32 for value in logs.values())
        assert all(value.isfinite().all() for value in logs.values())
    assert (False, True) in heard or not _takes_a_derivative(method)
    assert (True, True) not in heard
    assert (True, False) in heard or all(is_derivative for _, is_derivative in heard)
    assert all(p.dtype == torch.float32 for p in learning.nets.online.parameters())


def _takes_a_derivative(method: str) -> bool:
    passes = PREDICTIONS[method].passes(0.25)
    return passes.derivative + passes.kept > 0.0


# Compilation.


def learns_the_same_compiled(method: str, *, net: str, step: int) -> None:
    states = []
    for is_compiled in (False, True):
        training = {"precision": "float64", "compile": is_compiled}
        learning = learning_of(method, step=step, net=net, **training)
        # A network that is compiled anew too often would be left as it is without a word.
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            for _ in range(TURNS):
                learning.advance()
        assert (learning.nets.online._compiled_call_impl is not None) is is_compiled
        states.append(learning.state())
    assert distance(*states) < 1e-8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_network_learns_the_same(method: str) -> None:
    """In the middle of a run and at its end, where curricula have other branches."""
    torch._dynamo.reset()
    for step in (STEPS // 2, STEPS - TURNS):
        learns_the_same_compiled(method, net="mlp", step=step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
@pytest.mark.parametrize(
    ("method", "net"),
    [*((method, "unet") for method in METHODS), *((method, "dit") for method in OF_EACH_KIND)],
)
def test_a_compiled_network_of_images_learns_the_same(method: str, net: str) -> None:
    torch._dynamo.reset()
    learns_the_same_compiled(method, net=net, step=STEPS // 2)
