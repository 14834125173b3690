"""FID is refused in one sentence wherever its library or its weights are missing."""

import importlib.util
from pathlib import Path

import pytest
import torch

from onestep.platform.evaluation.fid import WEIGHTS, FidUnavailable, fid


def test_fid_says_what_it_lacks(tmp_path: Path) -> None:
    images = torch.zeros(4, 1, 8, 8)
    installed = importlib.util.find_spec("torch_fidelity") is not None
    expected = WEIGHTS if installed else r"install the extra with onestep\[fid\]"
    with pytest.raises(FidUnavailable, match=expected):
        fid(images, images, weights=tmp_path / WEIGHTS)
