"""Folders of several machines are told from those of one by where they are mounted."""

from pathlib import Path

import psutil
import pytest

from onestep.platform.file_system import is_on_network


def mount(monkeypatch: pytest.MonkeyPatch, places: list[tuple[Path, str]]) -> None:
    """Have the machine say that file systems of some kinds are mounted, in this order."""
    found = [psutil._ntuples.sdiskpart("none", str(place), kind, "rw") for place, kind in places]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: found if all else [])


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("efs", True),
        ("lustre", True),
        ("fuse.s3fs", True),
        ("fuse.sshfs", True),
        ("ext4", False),
        ("xfs", False),
        ("overlay", False),
        ("tmpfs", False),
        ("fuseblk", False),
        ("", False),
    ],
)
def test_a_file_system_of_the_network_is_known_by_its_kind(
    kind: str, is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, [(tmp_path, kind), (Path("/"), "ext4")])
    assert is_on_network(tmp_path / "home") is is_one


def test_the_longest_mount_point_of_a_folder_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, near = tmp_path / "mnt", tmp_path / "mnt" / "near"
    for folder in (near, tmp_path / "mnt-2"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(shared)
    mount(monkeypatch, [(near, "ext4"), (shared, "nfs4"), (Path("/"), "ext4")])
    assert is_on_network(shared)
    assert is_on_network(tmp_path / "link")
    assert not is_on_network(near)
    assert not is_on_network(tmp_path / "mnt-2")
    assert not is_on_network(tmp_path)


def test_what_is_mounted_over_another_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(monkeypatch, [(tmp_path, "autofs"), (tmp_path, "nfs4")])
    assert is_on_network(tmp_path)


def test_what_the_machine_really_says_is_understood() -> None:
    assert not is_on_network(Path("/proc/self"))
