"""Which code made a run: the git revision, and the versions of what it stands on."""

import hashlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("onestep", "ray", "numpy", "mlflow")
_PACKAGE_FOLDER: Final = Path(__file__).resolve().parents[2]
_CODE: Final = ("*.py", "*.yaml")
_TRAINING: Final = ("methods", "platform", "sweeps")
"""The folders whose code decides what a training or a trial comes to."""
_SPACES: Final = "sweeps/conf/"
"""A sweep has its own copy of what it read there, and no use for what stands beside it."""
_SHORT: Final = 16
_TIMEOUT_S: Final = 10.0


def code_revision(folder: Path = _PACKAGE_FOLDER) -> str:
    """Git revision of a checkout, with `+dirty` if files differ from it or code is new.

    Args:
        folder: Folder of the checkout; by default that of this package.

    Returns:
        The revision, or `unknown` if the folder is none: a package that is installed somewhere
        within another project's checkout has not that project's revision.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    revision = _git(folder, "rev-parse", "HEAD")
    if top is None or revision is None or Path(top) != folder.resolve():
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "--", *_CODE)
    return revision if changed == new == "" else f"{revision}+dirty"  # None: nobody knows


def code_digest(folder: Path = _PACKAGE_FOLDER) -> str:
    """SHA-256 of the code that trains, wherever it is installed.

    Unlike the revision it tells two changed checkouts apart, and leaves documents out.

    Args:
        folder: Folder of the package.
    """
    digest = hashlib.sha256()
    for file in _files_of(folder):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def code_files(folder: Path = _PACKAGE_FOLDER) -> dict[str, str]:
    """The beginning of the SHA-256 of each file of that code, by its path.

    Args:
        folder: Folder of the package.
    """
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:_SHORT]
        for file in _files_of(folder)
    }


def _files_of(folder: Path) -> list[Path]:
    files = (file for part in _TRAINING for kind in _CODE for file in (folder / part).rglob(kind))
    return sorted(
        file for file in files if not file.relative_to(folder).as_posix().startswith(_SPACES)
    )


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide about numbers."""
    import torch  # slow, and the process that writes runs has no other use for it

    versions = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    # The name of its build as well, such as 2.13.0+cu130, which PyPI's packages leave out.
    versions["torch"] = str(torch.__version__)
    return versions


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            check=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
