from pathlib import Path

import pytest
import torch

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.platform.registry.errors import ArchitectureMismatch
from onestep.platform.registry.model import build_flow_map, fill, load_flow_map
from onestep.platform.registry.record import ModelRecord
from onestep.platform.registry.run import Run
from onestep.platform.registry.store import Registry
from onestep.tests.platform.registry.contract import facts

NET = "onestep.methods.nets.mlp.MLP"


def record(**fields: int) -> ModelRecord:
    return ModelRecord(
        name="moons",
        method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
        net={"_target_": NET, **fields},
        shape=(2,),
        classes=2,
        label_names=("upper", "lower"),
        domain=Domain().to_dict(),
        data_digest="d",
        seed=0,
    )


@pytest.fixture
def registry(local_registry) -> Registry:
    return local_registry()


def register(registry: Registry, described: ModelRecord, net: FlowMap) -> str:
    run = Run.start(registry.connection, facts("moons"))
    return str(registry.register(described, net.state_dict(), run_id=run.run_id))


def test_a_registered_network_answers_as_before(registry):
    net = build_flow_map(record(width=16)).eval()
    reference = register(registry, record(width=16), net)
    loaded, described = load_flow_map(registry, reference)
    assert described == record(width=16)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    x, s, t = torch.randn(4, 2), torch.zeros(4), torch.ones(4)
    assert torch.equal(loaded(x, s, t), net(x, s, t))


def test_weights_of_another_architecture_are_refused_in_one_sentence(registry):
    net = build_flow_map(record(width=16))
    reference = register(registry, record(width=32), net)
    with pytest.raises(ArchitectureMismatch, match=r"moons/1 .* weight '.*' has shape") as caught:
        load_flow_map(registry, reference)
    assert "\n" not in str(caught.value)


def test_the_first_weight_that_does_not_fit_is_named():
    net = torch.nn.Linear(2, 1)
    weights = net.state_dict()
    with pytest.raises(ArchitectureMismatch, match="it has no weight 'bias'"):
        fill(net, {"weight": weights["weight"]}, model="a")
    with pytest.raises(ArchitectureMismatch, match="unknown weight 'wings'"):
        fill(net, weights | {"wings": torch.ones(1)}, model="a")
    with pytest.raises(ArchitectureMismatch, match=r"'weight' has shape \(3, 2\), .* \(1, 2\)"):
        fill(net, weights | {"weight": torch.ones(3, 2)}, model="a")


def test_nothing_that_python_would_run_is_loaded(registry, tmp_path: Path):
    net = build_flow_map(record(width=16))
    register(registry, record(width=16), net)
    for path in (tmp_path / "home" / "artifacts").rglob("*"):
        assert path.is_dir() or path.suffix in (".safetensors", ".json")
