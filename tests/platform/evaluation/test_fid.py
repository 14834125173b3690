"""FID is refused in one sentence wherever its library or its weights are missing."""

import importlib.util
from pathlib import Path

import pytest
import torch

from onestep.platform.evaluation.fid import WEIGHTS, FidUnavailable, _Levels, check_fid


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
