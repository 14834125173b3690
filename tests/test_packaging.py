"""The wheel holds what the tree holds, and the pins are exact and fit what the project asks for."""

import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent.parent
PARTS: Final = ("methods", "platform", "sweeps", "serving")
DATA: Final = (".yaml", ".html", ".css", ".js", ".json")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)")


def pin_lines() -> list[str]:
    text = (ROOT / "constraints.txt").read_text()
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def pins() -> dict[str, Version]:
    matches = [PIN.match(line) for line in pin_lines()]
    return {canonicalize_name(match[1]): Version(match[2]) for match in matches if match}


def requirements() -> Iterator[Requirement]:
    """What the project and all its extras ask for, on this machine."""
    extras = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *itertools.chain(*extras)]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def test_every_line_of_the_constraints_is_an_exact_version() -> None:
    pattern = re.compile(PIN.pattern + r"(\s*;.+)?(\s+#.*)?")
    assert [line for line in pin_lines() if not pattern.fullmatch(line)] == []
    assert len(pin_lines()) > 50


def test_no_package_is_pinned_twice() -> None:
    names = [canonicalize_name(line.split("==")[0]) for line in pin_lines() if ";" not in line]
    assert len(names) == len(set(names))


def test_torch_is_pinned_first() -> None:
    """The newest one would otherwise bring another build."""
    assert pin_lines()[0] == "torch==2.13.0"


def test_every_requirement_is_pinned_within_its_range() -> None:
    found = pins()
    asked = {canonicalize_name(r.name): r for r in requirements()}
    assert sorted(set(asked) - set(found)) == []
    wrong = [
        f"{requirement} is pinned to {found[name]}"
        for name, requirement in asked.items()
        if not requirement.specifier.contains(found[name], prereleases=True)
    ]
    assert wrong == []


def test_no_package_index_is_named() -> None:
    files = [ROOT / name for name in ("constraints.txt", "pyproject.toml", "Makefile")]
    wrong = [
        f.name for f in files if re.search(r"index-url|find-links|://[^\s]*/simple", f.read_text())
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Files of a wheel that is built from a copy of what the package is made of."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def tree_files() -> set[str]:
    found = {
        f"onestep/{path.relative_to(ROOT)}"
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.suffix in (".py", *DATA) and "__pycache__" not in path.parts
    }
    return found | {"onestep/__init__.py", "onestep/py.typed"}


def test_the_wheel_holds_the_code_and_configuration_of_the_tree(wheel_files: set[str]) -> None:
    missing = tree_files() - wheel_files
    assert sorted(missing) == []


def test_the_wheel_holds_nothing_else(wheel_files: set[str]) -> None:
    extra = {name for name in wheel_files - tree_files() if ".dist-info/" not in name}
    assert sorted(extra) == []


def test_the_wheel_shadows_no_standard_module(wheel_files: set[str]) -> None:
    assert "onestep/platform/__init__.py" not in wheel_files
    tops = {name.split("/")[0] for name in wheel_files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"onestep"}


def test_the_wheel_names_its_commands(wheel_files: set[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel_files)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_files)
