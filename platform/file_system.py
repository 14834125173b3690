"""File systems: whether a folder lies on one that several machines mount."""

from pathlib import Path
from typing import Final

import psutil

_NETWORK: Final = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "efs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "panfs",
        "smb3",
        "smbfs",
        "virtiofs",
        "wekafs",
    }
)
_IN_USER_SPACE: Final = "fuse."
"""Of these most are stores elsewhere, and none is known to share memory between machines."""


def is_on_network(folder: Path) -> bool:
    """Whether a folder lies on a file system that other machines may mount.

    Args:
        folder: The folder, which exists.
    """
    kind = _kind(folder)
    return kind in _NETWORK or kind.startswith(_IN_USER_SPACE)


def _kind(folder: Path) -> str:
    """The kind of the file system that a folder lies on, or nothing where nobody can tell."""
    place, kinds = folder.resolve(), dict[Path, str]()
    for one in psutil.disk_partitions(all=True):
        kinds[Path(one.mountpoint)] = one.fstype  # of several at one place the last is seen
    return next((kinds[one] for one in (place, *place.parents) if one in kinds), "")
