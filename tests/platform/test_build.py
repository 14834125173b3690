import pytest
import torch

from onestep.methods.core.coupling import AbstractCoupling, MinibatchOTCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import AbstractLearner, AbstractMethod
from onestep.methods.core.path import LinearPath
from onestep.methods.core.schedule import Constant, Product, Schedule
from onestep.methods.mean_flow import MeanFlow
from onestep.platform.build import build
from onestep.platform.configuration import compose

OT = {"_target_": "onestep.methods.core.coupling.MinibatchOTCoupling", "by_label": True}
CONSTANT = {"_target_": "onestep.methods.core.schedule.Constant", "value": 0.5}
METHOD = {
    "_target_": "onestep.methods.mean_flow.MeanFlow",
    "coupling": OT,
    "tangent": {"_target_": "onestep.methods.core.schedule.Product", "factors": [CONSTANT]},
}
MLP = {"_target_": "onestep.methods.nets.mlp.MLP", "width": 8, "depth": 1, "embedding_width": 8}


def test_nodes_nest_in_nodes_and_in_lists() -> None:
    assert build(METHOD, AbstractMethod) == MeanFlow(
        coupling=MinibatchOTCoupling(by_label=True),
        tangent=Product(factors=(Constant(value=0.5),)),
    )


def test_what_only_the_caller_knows_goes_in_as_it_is() -> None:
    domain = Domain()
    net = build(MLP, FlowMap, shape=(2,), domain=domain)
    assert net.domain is domain


def test_a_partial_node_lacks_its_last_arguments() -> None:
    node = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.25}
    make = build(node, object)
    assert callable(make)
    optimizer = make([torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"value": 1.0}, "a node needs a _target_ that names its class"),
        ({"_target_": "onestep.absent.Thing"}, "cannot import onestep.absent.Thing"),
        ({"_target_": "onestep.methods.mean_flow.Absent"}, "cannot import onestep.methods.mean"),
        ({"_target_": "Bare"}, "cannot import Bare"),
        ({"_target_": "onestep.methods.core.rng.mix"}, "onestep.methods.core.rng.mix is no class"),
        ({**CONSTANT, "vaule": 1.0}, "Constant has no field 'vaule', allowed: value"),
        ({**CONSTANT, "value": "half"}, "Constant.value must be a number, got 'half'"),
        ({**CONSTANT, "value": True}, "Constant.value must be a number, got True"),
        ({**OT, "by_label": 1}, "is no Schedule|must be true or false, got 1"),
        (OT, r"onestep\.methods\.core\.coupling\.MinibatchOTCoupling is no Schedule"),
    ],
)
def test_a_wrong_node_is_refused(node: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(node, Schedule)


def test_a_wrong_field_of_an_inner_node_is_refused() -> None:
    with pytest.raises(ValueError, match="MinibatchOTCoupling has no field 'lable'"):
        build({**METHOD, "coupling": {**OT, "lable": 1}}, AbstractMethod)
    inner = {"_target_": METHOD["tangent"]["_target_"], "factors": [{**CONSTANT, "x": 1}]}
    with pytest.raises(ValueError, match="Constant has no field 'x', allowed: value"):
        build({**METHOD, "tangent": inner}, AbstractMethod)


@pytest.mark.parametrize(
    ("choice", "field"), [("method=align_your_flow", "chains"), ("net=unet_tiny", "multipliers")]
)
def test_each_of_a_list_of_whole_numbers_is_one(choice: str, field: str) -> None:
    group, _ = choice.split("=")
    whole = compose("train", [choice])[group]
    for wrong in (1.5, True, "2"):
        with pytest.raises(ValueError, match=rf"\.{field} must be a whole number, got {wrong!r}"):
            build({**whole, field: [1, wrong]}, object)


@pytest.mark.parametrize(
    "method", ["dmd2", "instaflow", "consistency_trajectory", "align_your_flow"]
)
def test_a_word_for_a_critic_is_refused(method: str) -> None:
    node = compose("train", [f"method={method}"])["method"]
    sentence = r"\.adversary must be a node that names its class, or null, got 'critic'$"
    with pytest.raises(ValueError, match=sentence):
        build({**node, "adversary": "critic"}, AbstractLearner)
    assert isinstance(build(node, AbstractLearner), AbstractLearner), "null is allowed"


def test_a_node_of_another_thing_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^MeanFlow\.coupling must be of AbstractCoupling, got Co"
    ):
        build({**METHOD, "coupling": CONSTANT}, AbstractMethod)
    node = compose("train", ["method=instaflow"])["method"]
    wanted = r"InstaFlow\.perception must be of FeatureDistance or AbstractDistance, got Constant"
    with pytest.raises(ValueError, match=wanted):
        build({**node, "perception": CONSTANT}, AbstractLearner)


def test_the_error_of_a_class_comes_through_as_it_is() -> None:
    high = {**METHOD, "tangent": {**CONSTANT, "value": 2.0}}
    with pytest.raises(ValueError, match=r"^method\.tangent must stay in \[0, 1\], got 2$"):
        build(high, AbstractMethod)


def test_a_missing_argument_is_told() -> None:
    with pytest.raises(ValueError, match=r"MLP: .*missing .*'shape'"):
        build(MLP, FlowMap, domain=Domain())


def test_objects_that_are_no_nodes_are_left_alone() -> None:
    path = LinearPath()
    built = build({"_target_": METHOD["_target_"]}, AbstractMethod, path=path)
    assert isinstance(built, MeanFlow)
    assert built.path is path
    assert isinstance(build(OT, AbstractCoupling), MinibatchOTCoupling)
