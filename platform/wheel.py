"""The wheel of this package: built from a checkout, and laid out for a Ray job to bring along."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

_PACKAGE: Final = "onestep"
_PROJECT: Final = "pyproject.toml"
_BUILD: Final = """\
import sys
from setuptools import build_meta
build_meta.build_wheel(sys.argv[1])
"""
_NEEDED: Final = "setuptools>=77"


def checkout_here() -> Path | None:
    """The checkout that this package runs from, or None where it is installed as a wheel."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / _PROJECT).is_file() else None


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build the wheel of a checkout.

    Setuptools takes what an earlier build has left in the checkout for a part of it, so it is built
    from a copy.

    Args:
        checkout: Folder of the sources.
        folder: Where the wheel is to lie; made if it is missing.

    Returns:
        The wheel.

    Raises:
        ValueError: If it cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="onestep-build-") as place:
        source, out = Path(place) / "source", Path(place) / "out"
        out.mkdir()
        _copy(checkout, source)
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(out)],
            cwd=source,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = next(reversed(done.stderr.strip().splitlines()), "no reason given")
            raise ValueError(
                f"the wheel of {checkout} cannot be built, which takes {_NEEDED} in this "
                f"environment: {last}"
            )
        (built,) = out.glob("*.whl")
        return Path(shutil.move(built, folder / built.name))


def _copy(checkout: Path, source: Path) -> None:
    """Copy what the wheel is made of: the folders of its packages, and the files beside them."""
    source.mkdir()
    project = tomllib.loads((checkout / _PROJECT).read_text())
    packages: list[str] = project["tool"]["setuptools"]["packages"]
    for part in sorted({name.split(".")[1] for name in packages if "." in name}):
        shutil.copytree(
            checkout / part, source / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in checkout.iterdir():
        if file.is_file():
            shutil.copy2(file, source)


def modules_of(wheel: Path, cache: Path) -> tuple[Path, ...]:
    """The folders of a wheel, for the `py_modules` of a Ray job.

    Ray would install a wheel that it finds there with everything that it depends on, torch and Ray
    among it, on every node. The folders as such take no installation: the package itself, and
    beside it the metadata by which the command line finds commands and Hydra configurations.

    Args:
        wheel: A wheel of this package.
        cache: Folder of wheels that were laid out before; the same contents lie there once.

    Returns:
        The package and its metadata.

    Raises:
        ValueError: If the file is no wheel of this package.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {one.filename: archive.read(one) for one in archive.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"--wheel must be a wheel of {_PACKAGE}, got {wheel}: {error}") from error
    tops = sorted({name.partition("/")[0] for name in members})
    if len(tops) != 2 or tops[0] != _PACKAGE or not tops[1].endswith(".dist-info"):
        raise ValueError(
            f"--wheel must be a wheel of {_PACKAGE}, got {wheel}, which holds {', '.join(tops)}"
        )
    digest = hashlib.sha256()
    for name, content in sorted(members.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    place = cache / digest.hexdigest()[:16]
    if not place.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(made) / "wheel")
            try:
                (Path(made) / "wheel").rename(place)
            except OSError:
                if not place.is_dir():  # another process has laid out the same
                    raise
    return tuple(place / top for top in tops)
