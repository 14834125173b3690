"""Stored pairs come back as they were, and altered ones are refused."""

from pathlib import Path

import pytest
import torch

from onestep.methods.core.condition import Condition
from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.pairs import Pairs, no_pairs, read_pairs, write_pairs

TOLD = Condition(tokens=torch.tensor([[0, 1], [2, -1], [1, 1], [-1, -1]]))
MADE = Pairs(x0=torch.randn(4, 2), x1=torch.randn(4, 2), condition=TOLD)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_pairs(tmp_path, MADE, no_pairs((2,)), {"teacher": "none/1"})
    return tmp_path


def test_pairs_come_back_as_they_were(stored: Path) -> None:
    found = read_pairs(stored)
    assert torch.equal(found.generated.x0, MADE.x0)
    assert torch.equal(found.generated.x1, MADE.x1)
    assert found.generated.condition is not None
    assert found.generated.condition.label is None
    assert found.generated.condition.tokens is not None
    assert torch.equal(found.generated.condition.tokens, TOLD.tokens)  # type: ignore[arg-type]
    assert len(found.real) == 0
    assert found.lineage == {"teacher": "none/1"}


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"sha256": "0"}'])
def test_an_altered_manifest_is_refused_in_one_sentence(content: str, stored: Path) -> None:
    (manifest,) = stored.glob("*.json")
    manifest.write_text(content)
    with pytest.raises(DataAltered, match=f"{manifest.name} is truncated or altered"):
        read_pairs(stored)


def test_altered_tensors_are_refused(stored: Path) -> None:
    (tensors,) = stored.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(DataAltered, match="are truncated or altered: sha256"):
        read_pairs(stored)


def test_missing_pairs_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="there is no set of pairs in"):
        read_pairs(tmp_path)


def test_a_set_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    rows = torch.ones(1 << 20, 8)
    write_pairs(tmp_path, Pairs(x0=rows, x1=rows), no_pairs((8,)), {})
    before = own_memory()
    found = read_pairs(tmp_path)
    assert found.generated.x1[[0, -1]].sum() == 16.0
    assert own_memory() - before < rows.nbytes / 4


def own_memory() -> int:
    """Bytes of this process that are no mapped file."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
