import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from onestep.platform.home import Home
from onestep.platform.training.lpips import _network
from onestep.tests.platform.training.lpips_stand_in import Standin


@pytest.fixture
def home(home_folder: Path) -> Home:
    """A home with a model store of its own, which the environment names."""
    del home_folder
    return Home.here()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package of LPIPS and the weights of one backbone."""
    module = ModuleType("lpips")
    module.__spec__ = ModuleSpec("lpips", None)
    module.LPIPS = Standin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"")
    _network.cache_clear()
