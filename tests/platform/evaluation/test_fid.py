"""FID by another extractor, and refused in one sentence where library or weights are missing."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestep.methods.oracle import GaussianMap
from onestep.platform.data.digits import Digits
from onestep.platform.data.unlabelled import Unlabelled
from onestep.platform.evaluation import fid as measured
from onestep.platform.evaluation.benchmark import Benchmark
from onestep.platform.evaluation.fid import (
    WEIGHTS,
    FidUnavailable,
    InceptionWeights,
    _Levels,
    check_fid,
    fid_at,
)
from onestep.platform.evaluation.frechet import frechet_distance
from onestep.platform.evaluation.sampling import clipped, draw_samples, samplers_at


def test_fid_says_what_it_lacks(tmp_path: Path) -> None:
    installed = importlib.util.find_spec("torch_fidelity") is not None
    expected = WEIGHTS if installed else r"install the extra with onestep\[fid\]"
    with pytest.raises(FidUnavailable, match=expected):
        check_fid((1, 8, 8), tmp_path / WEIGHTS)


def test_points_have_no_fid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 or 3 channels, got shape \(2,\)"):
        check_fid((2,), tmp_path / WEIGHTS)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason="needs the extra fid")
    (tmp_path / WEIGHTS).write_bytes(b"other")
    with pytest.raises(FidUnavailable, match="sha256 begins with 6726825d, got"):
        check_fid((3, 8, 8), tmp_path / WEIGHTS)


def test_images_become_three_channels_of_levels() -> None:
    image = torch.tensor([-1.0, 0.0, 1.0, 1.2]).reshape(1, 1, 2, 2)
    levels = _Levels(image)[0]
    assert levels.dtype == torch.uint8
    assert levels.flatten(1).tolist() == [[0, 128, 255, 255]] * 3


def quarters(x: Tensor) -> Tensor:
    """Mean level of each quarter of the first channel."""
    return torch.nn.functional.avg_pool2d(x[:, :1].double(), x.shape[-1] // 2).flatten(1)


def test_fid_is_the_distance_of_samples_and_training_data_in_the_extractors_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_fidelity", reason="needs the extra fid")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import register_feature_extractor

    class Quarters(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **settings: object) -> None:
            super().__init__(name, features_list)
            assert settings["feature_extractor_weights_path"] == str(file)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("quarters",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "quarters"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (quarters(x),)

    file = tmp_path / WEIGHTS
    register_feature_extractor("quarters", Quarters)
    monkeypatch.setattr(measured, "EXTRACTOR", "quarters")
    dataset = Unlabelled(of=Digits()).load()
    benchmark = Benchmark.prepare(dataset, home=tmp_path, samples=32, draws=2)
    oracle = GaussianMap(mean=torch.zeros(1, 8, 8), std=torch.ones(1, 8, 8))

    found = fid_at(oracle, benchmark, nfe=1, weights=InceptionWeights(file=file, sha256="ab"))
    ((_, sampler),) = samplers_at(oracle.domain, [1])
    x = draw_samples(
        oracle, sampler, n=64, shape=(1, 8, 8), seed=benchmark.seed, condition=None, finish=clipped
    )
    levels = [
        torch.stack([_Levels(images)[k] for k in range(len(images))])
        for images in (x, dataset.train.everything()[0])
    ]
    expected = frechet_distance(*map(quarters, levels))
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert (found.count, found.reference_count) == (64, len(dataset.train))
    assert (found.weights, found.weights_sha256) == (WEIGHTS, "ab")
