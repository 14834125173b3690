import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.platform.configuration import compose

FOLDER = Path(str(files("onestep.methods.conf"))) / "net"
SHAPES = {"the plane": (2,), "8 x 8": (1, 8, 8), "28 x 28": (1, 28, 28), "32 x 32": (3, 32, 32)}
COUNT = re.compile(r"([\d.]+) to ([\d.]+) M parameters")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_builds_a_net_of_the_size_that_it_states(path: Path) -> None:
    text = path.read_text()
    (shape,) = (shape for words, shape in SHAPES.items() if words in text.splitlines()[0])
    stated = COUNT.search(text)
    assert stated is not None
    domain = Domain(t_lo=0.01, t_hi=0.99)  # a predicted noise has no velocity at pure noise
    with torch.device("meta"):
        node = compose("train", [f"net={path.stem}"])["net"]
        net = instantiate(node, shape=shape, classes=10, domain=domain)
    assert isinstance(net, FlowMap)
    millions = sum(weight.numel() for weight in net.parameters()) / 1e6
    assert float(stated[1]) <= millions <= float(stated[2])


def test_the_sizes_reach_from_a_tenth_of_a_million_to_more_than_fifty() -> None:
    stated = [COUNT.search(path.read_text()) for path in FOLDER.glob("*.yaml")]
    low = [float(match[1]) for match in stated if match is not None]
    assert min(low) <= 0.1
    assert max(low) >= 50
