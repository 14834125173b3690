import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.platform.atomic import sha256
from onestep.platform.registry.errors import ArchitectureMismatch, ModelAltered, ModelNotTrusted
from onestep.platform.registry.model import build_flow_map, dataset_of, fill, load_flow_map
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


def planted(marker: Path) -> dict[str, object]:
    """A node of a class whose constructor makes a file."""
    return {"_target_": "logging.FileHandler", "filename": str(marker)}


@pytest.mark.parametrize(
    "plant",
    [
        planted,
        lambda marker: [planted(marker)],
        lambda marker: {"deep": [{"deeper": planted(marker)}]},
        lambda marker: f"${{oc.create:{{_target_:pathlib.Path.touch,_args_:[{marker}]}}}}",
        # Our modules import classes that are not ours.
        lambda marker: {"_target_": "onestep.platform.home.Path"},
    ],
)
def test_a_record_that_names_a_class_of_another_package_is_refused_and_builds_nothing(
    plant: Callable[[Path], object], registry, tmp_path: Path
):
    marker = tmp_path / "ran"
    node = {"_target_": "onestep.methods.nets.preconditioning.Preconditioned", "net": plant(marker)}
    described = replace(record(width=16), net=node)
    reference = register(registry, described, build_flow_map(record(width=16)))
    with pytest.raises(ModelNotTrusted, match="the network of a model 'moons'") as caught:
        load_flow_map(registry, reference)
    assert "\n" not in str(caught.value)
    data = {"_target_": "onestep.platform.data.curves.Moons", "seed": node}
    with pytest.raises(ModelNotTrusted, match="the data of moons/1"):
        dataset_of(replace(described, experiment={"data": data}), model=reference)
    assert not marker.exists()


def test_a_package_is_trusted_once_the_user_says_so(monkeypatch):
    described = replace(record(), net={"_target_": "torch.nn.Identity"})
    with pytest.raises(ModelNotTrusted, match="add it to ONESTEP_TRUST"):
        build_flow_map(described)
    monkeypatch.setenv("ONESTEP_TRUST", "mine, torch")
    with pytest.raises(ValueError, match=r"torch\.nn\.Identity is no FlowMap"):
        build_flow_map(described)


class Touch:
    """What Python calls when it loads a pickle of this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_a_pickle_in_the_place_of_weights_is_refused_and_not_loaded(registry, tmp_path: Path):
    marker = tmp_path / "ran"
    reference = register(registry, record(width=16), build_flow_map(record(width=16)))
    (weights,) = (tmp_path / "home" / "artifacts").rglob("*.safetensors")
    pickled = pickle.dumps(Touch(marker))
    weights.write_bytes(pickled)
    with pytest.raises(ModelAltered, match="was altered or truncated"):
        load_flow_map(registry, reference)
    # Nor by someone who can write to the store and mends the checksum.
    tag = ("onestep.weights_sha256", sha256(pickled))
    registry.connection.client.set_model_version_tag("moons", "1", *tag)
    with pytest.raises(ModelAltered, match="is no safetensors file"):
        load_flow_map(registry, reference)
    assert not marker.exists()
    pickle.loads(pickled)
    assert marker.exists()
