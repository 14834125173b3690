from pathlib import Path

import pytest

from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.published import PublishedFile, data_folder, provide, read

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
FILE = PublishedFile(name="file.gz", sha256=EMPTY, address="http://127.0.0.1:1/")


def test_a_folder_that_is_asked_for_comes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONESTEP_DATA", "/data")
    assert data_folder("/asked") == Path("/asked")
    assert data_folder(None) == Path("/data")


def test_without_a_data_folder_the_home_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONESTEP_DATA", raising=False)
    monkeypatch.setenv("ONESTEP_HOME", "/home")
    assert data_folder(None) == Path("/home/data")
    monkeypatch.delenv("ONESTEP_HOME")
    assert data_folder(None) == Path(".onestep/data")


def test_a_missing_file_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        provide(FILE, tmp_path, ("mnist", "MNIST/raw"), download=False)
    assert str(caught.value) == (
        f"file.gz was looked for in {tmp_path}/mnist, {tmp_path}/MNIST/raw and is not there; "
        f"set ONESTEP_DATA to a folder that holds mnist/file.gz, or let onestep download it with "
        f"data.download=true"
    )
    assert list(tmp_path.iterdir()) == []


def test_every_layout_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "MNIST" / "raw" / "file.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    assert provide(FILE, tmp_path, ("mnist", "MNIST/raw"), download=False) == path


def test_the_published_file_is_read_and_an_altered_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.touch()
    assert read(path, sha256=EMPTY) == b""
    path.write_bytes(b"x")
    with pytest.raises(DataAltered, match=f"{path} has 1 bytes .* published file has {EMPTY}"):
        read(path, sha256=EMPTY)
