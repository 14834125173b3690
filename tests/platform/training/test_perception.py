"""The perceptual distance `auto`: LPIPS where it can be had, otherwise features, always by name."""

from pathlib import Path
from typing import Final

import pytest
import torch

from onestep.methods.core.feature_distance import FeatureDistance
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import parts_of
from onestep.platform.training.lpips import Lpips
from onestep.platform.training.perception import (
    LpipsOrFeatures,
    perceptions,
    require_perception,
    with_perception,
)
from onestep.platform.training.sequence import StageSequence
from onestep.platform.training.trial import check_trial
from onestep.tests.platform.training.test_sequence import TINY
from onestep.tests.platform.training.watching import Meddler

TAKES_FEATURES: Final = {"instaflow": "perception", "improved_reflow": "endpoint"}
TAKES_LPIPS: Final = (
    "consistency_distillation",
    "consistency_training",
    "consistency_trajectory",
    "flow_guided_distillation",
)
FEATURES: Final = {
    "_target_": "onestep.methods.core.feature_distance.FeatureDistance",
    "features": ["blocks.0", "blocks.1"],
    "time": 0.5,
}
LPIPS: Final = {
    "_target_": "onestep.platform.training.lpips.Lpips",
    "backbone": "vgg",
    "side": 64,
}


@pytest.fixture(autouse=True)
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights of LPIPS, whatever this machine has; ``installed`` comes after it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))


def experiment(*overrides: str) -> Experiment:
    values = compose("train", overrides)
    values.pop("stages", None)
    return Experiment.from_dict(values, overrides)


def asked(method: str, *overrides: str, features: str = "[blocks.0,blocks.1]") -> Experiment:
    """One whose method compares by features or by LPIPS, whichever can be had."""
    field = TAKES_FEATURES[method]
    return experiment(
        f"method={method}",
        "parents.teacher=digits/1",
        f"perception@method.{field}=auto",
        f"method.{field}.features={features}",
        f"method.{field}.time=0.5",
        *overrides,
    )


@pytest.mark.parametrize("method", TAKES_FEATURES)
def test_without_lpips_the_features_of_the_teacher_are_taken_and_named(method: str) -> None:
    found = with_perception(asked(method))
    field = TAKES_FEATURES[method]
    assert found.method[field] == FEATURES
    distance = getattr(parts_of(found).learner, field)
    assert distance == FeatureDistance(features=("blocks.0", "blocks.1"), time=0.5)
    said = f"method.{field}: not LPIPS, but features of the teacher at blocks.0, blocks.1"
    assert list(perceptions(found)) == [said]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", TAKES_FEATURES)
def test_where_lpips_is_it_is_taken_and_named(method: str) -> None:
    found = with_perception(asked(method))
    field = TAKES_FEATURES[method]
    assert found.method[field] == LPIPS
    assert getattr(parts_of(found).learner, field) == Lpips()
    assert list(perceptions(found)) == [f"method.{field}: LPIPS with backbone vgg"]


@pytest.mark.usefixtures("installed")
def test_lpips_of_a_backbone_without_weights_is_not_taken() -> None:
    found = with_perception(asked("instaflow", "method.perception.backbone=alex"))
    assert found.method["perception"] == FEATURES


@pytest.mark.usefixtures("installed")
def test_points_are_no_images_for_lpips() -> None:
    found = with_perception(asked("instaflow", "data=moons", "net=mlp"))
    assert found.method["perception"] == FEATURES


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", TAKES_LPIPS)
def test_other_methods_take_lpips(method: str) -> None:
    lines = (f"method={method}", "parents.teacher=digits/1", "parents.weak=digits/1")
    for choice in ("lpips", "auto"):
        found = with_perception(experiment(*lines, f"perception@method.distance={choice}"))
        assert found.method["distance"] == LPIPS


@pytest.mark.parametrize("method", TAKES_FEATURES)
def test_where_neither_can_be_had_it_is_refused(method: str) -> None:
    sentence = r"auto needs LPIPS, or parts of the teacher as features: LPIPS needs the"
    with pytest.raises(ValueError, match=rf"^method\.{TAKES_FEATURES[method]} {sentence}"):
        with_perception(asked(method, features="[]"))


def test_a_method_that_asks_no_network_is_refused_without_lpips() -> None:
    lines = ("method=consistency_training", "perception@method.distance=auto")
    sentence = r"^method\.distance asks no network for features, so that auto is LPIPS: LPIPS needs"
    with pytest.raises(ValueError, match=sentence):
        with_perception(experiment(*lines, "method.distance.features=[blocks.0]"))
    lines = ("method=consistency_training", "perception@method.distance=features")
    with pytest.raises(ValueError, match=r"distance must be of AbstractDistance, got FeatureDist"):
        parts_of(experiment(*lines, "method.distance.features=[blocks.0]"))


def test_features_that_are_asked_for_by_name_are_named_too() -> None:
    with pytest.raises(ValueError, match="at least one part of a network, got none"):
        parts_of(experiment("method=instaflow", "perception@method.perception=features"))


@pytest.mark.parametrize("has_lpips", [True, False])
def test_the_overrides_repeat_the_choice_on_any_machine(
    has_lpips: bool, request: pytest.FixtureRequest
) -> None:
    if has_lpips:
        request.getfixturevalue("installed")
    found = with_perception(asked("instaflow", "seed=5"))
    again = experiment(*found.overrides)
    assert again.to_dict() == found.to_dict()
    assert again.method["perception"] == (LPIPS if has_lpips else FEATURES)
    assert with_perception(again) is again
    assert again.seed == 5


def test_a_choice_that_is_left_open_compares_nothing_and_is_none_for_a_trial() -> None:
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="perception auto is replaced when"):
        LpipsOrFeatures()(x, x)
    with pytest.raises(ValueError, match=r"its perceptual distance: got auto, use perception@meth"):
        check_trial(asked("instaflow"))
    require_perception(with_perception(asked("instaflow")))


def test_a_run_says_which_one_it_is_and_its_record_does(home: Home) -> None:
    common = (*TINY, "net.width=16")
    student = (
        "method=instaflow",
        "parents.teacher={teacher}",
        "perception@method.perception=auto",
        "method.perception.features=[blocks.0,blocks.1]",
        "method.perception.time=0.5",
    )
    lines = list[str]()
    plan = {"teacher": ("method=flow_matching",), "student": student}
    made = StageSequence.of(plan, common).run(Meddler(said=lines.append))["student"]
    said = "method.perception: not LPIPS, but features of the teacher at blocks.0, blocks.1"
    assert lines.count(said) == 1
    registry = Registry.at(home)
    _, record = load_flow_map(registry, str(made.reference))
    assert record.method["perception"] == FEATURES
    assert "perception@method.perception=features" in record.overrides
    params = registry.connection.client.get_run(made.run_id).data.params
    assert params["method.perception._target_"] == FEATURES["_target_"]
