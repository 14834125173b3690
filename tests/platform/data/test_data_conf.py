from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

import onestep
from onestep.platform.data.source import AbstractSource

FOLDER = Path(onestep.__file__).parent / "platform" / "conf" / "data"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_every_set_has_a_configuration() -> None:
    assert [path.stem for path in FILES] == [
        "captioned_digits",
        "checkerboard",
        "cifar10",
        "digits",
        "eight_gaussians",
        "fashion_mnist",
        "hugging_face",
        "image_folder",
        "latents",
        "mnist",
        "moons",
        "spiral",
        "swiss_roll",
        "twenty_five_gaussians",
        "unlabelled",
    ]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "unlabelled"], ids=lambda path: path.stem
)
def test_a_configuration_sets_each_field_of_its_source(path: Path) -> None:
    node = OmegaConf.load(path)
    settings = OmegaConf.to_container(node)
    assert isinstance(settings, dict)
    source = get_class(str(settings.pop("_target_")))
    assert issubclass(source, AbstractSource)
    required = {field.name for field in fields(source) if field.default is MISSING}
    assert set(settings) == {field.name for field in fields(source)}
    assert {name for name, value in settings.items() if value == "???"} == required
    built = source(**{name: "." if name in required else settings[name] for name in settings})
    # The hub set and the folder have the name of what they read.
    if not required:
        assert built.name == path.stem
