import zipfile
from pathlib import Path

import pytest

from onestep.platform.wheel import build_wheel, checkout_here, modules_of


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkout of one module, in which an earlier build has left another."""
    root = tmp_path / "checkout"
    (root / "part").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "part" / "__init__.py").write_text("KEPT = True\n")
    stale = root / "build" / "lib" / "onestep" / "part"
    stale.mkdir(parents=True)
    (stale / "stale.py").write_text("")
    (root / "pyproject.toml").write_text(
        """\
[project]
name = "onestep"
version = "1"
[tool.setuptools]
packages = ["onestep", "onestep.part"]
package-dir = {onestep = "."}
"""
    )
    return root


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_is_built_without_what_earlier_builds_left_and_leaves_nothing(
    small: Path, tmp_path: Path
) -> None:
    before = sorted(small.rglob("*"))
    wheel = build_wheel(small, tmp_path / "dist")
    assert names(wheel) == {"onestep/__init__.py", "onestep/part/__init__.py"}
    assert sorted(small.rglob("*")) == before
    assert list((tmp_path / "dist").iterdir()) == [wheel]


def test_a_checkout_that_cannot_be_built_is_refused_with_the_reason(
    small: Path, tmp_path: Path
) -> None:
    broken = (small / "pyproject.toml").read_text().replace('version = "1"', 'version = "one"')
    (small / "pyproject.toml").write_text(broken)
    with pytest.raises(ValueError, match=r"cannot be built, which takes setuptools.*version"):
        build_wheel(small, tmp_path / "dist")


def test_the_same_contents_are_laid_out_once_and_others_elsewhere(
    small: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = modules_of(build_wheel(small, tmp_path / "a"), cache)
    again = modules_of(build_wheel(small, tmp_path / "b"), cache)
    assert first == again
    assert [folder.name for folder in first] == ["onestep", "onestep-1.dist-info"]
    assert (first[0] / "part" / "__init__.py").read_text() == "KEPT = True\n"
    (small / "part" / "__init__.py").write_text("KEPT = False\n")
    other = modules_of(build_wheel(small, tmp_path / "c"), cache)
    assert other[0] != first[0]
    assert len(list(cache.iterdir())) == 2, "nothing of the work is left"


def test_a_wheel_of_another_package_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
        archive.writestr("other-1.dist-info/METADATA", "")
    with pytest.raises(ValueError, match=r"a wheel of onestep.*which holds other, other-1"):
        modules_of(wheel, tmp_path / "cache")
    with pytest.raises(ValueError, match="--wheel must be a wheel of onestep"):
        modules_of(Path(__file__), tmp_path / "cache")


def test_the_tests_run_from_a_checkout() -> None:
    assert checkout_here() == Path(__file__).resolve().parents[2]
