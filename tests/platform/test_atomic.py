import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from onestep.platform import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_text_and_json_are_written_with_their_checksum(tmp_path):
    path = tmp_path / "new" / "file"
    assert atomic.write_bytes(path, b"abc") == atomic.sha256(b"abc") == atomic.sha256_of(path)
    assert atomic.write_text(path, "naught") == atomic.sha256_of(path)
    assert atomic.write_json(path, {"a": [1, None]}) == atomic.sha256_of(path)
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert names(path.parent) == ["file"]


def test_tensors_are_written_as_safetensors_even_if_they_share_memory(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    tensors = {"whole": whole, "tied": whole, "turned": whole.T}
    path = tmp_path / "weights.safetensors"
    digest = atomic.write_safetensors(path, tensors)
    assert digest == atomic.sha256_of(path)
    loaded = safetensors.torch.load_file(path)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_number_that_is_not_finite_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "file", {"a": float("nan")})
    assert names(tmp_path) == []


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic.replacing(path) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic.replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_when_no_more_can_be_written_nothing_is_left_half_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    # A limit on the size of files stops the write half way, as a full disk does.
    program = f"""
import resource, torch
from pathlib import Path
from onestep.platform import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    atomic.write_safetensors(Path({str(path)!r}), {{"a": torch.zeros(100_000)}})
except OSError as error:
    print(type(error).__name__, error.errno is not None, error.filename)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["OSError", "True", str(path)]
    assert path.read_text() == "old"
    assert names(tmp_path) == ["weights.safetensors"]
