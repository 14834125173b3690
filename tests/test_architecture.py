"""The shape of the repository: who imports whom, what things are called, and what stays apart."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PARTS: Final = ("methods", "platform", "sweeps", "serving")
MAY_IMPORT: Final = {
    "methods": {"methods"},
    "platform": {"platform", "methods"},
    "sweeps": {"sweeps", "platform", "methods"},
    "serving": {"serving", "platform", "methods"},
}
METHODS_FOR_PLATFORM: Final = ("methods.core", "methods.nets", "methods.conf", "methods.oracle")
METHODS_USE: Final = {"torch", "numpy", "scipy", "ot", "jaxtyping", "torchdiffeq"}
OPTIONAL: Final = {("methods/nets/diffusers_unet.py", "diffusers.UNet2DModel")}
"""Networks of libraries that need not be there, each imported by the file that holds it."""
PURE_STANDARD: Final = {
    "abc",
    "collections",
    "contextlib",
    "contextvars",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "types",
    "typing",
    "warnings",
}
"""Standard modules without files, clock, environment, processes or global random numbers."""
VAGUE: Final = {"util", "utils", "common", "misc", "helper", "helpers"}
PRINTS: Final = (
    "platform/cli.py",
    "platform/commands",
    "sweeps/command.py",
    "serving/command.py",
    "serving/key_command.py",
)


def sources(*folders: str) -> list[Path]:
    """The Python files of some folders, relative to the root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts)


def everywhere() -> list[Path]:
    return [
        Path("__init__.py"),
        *sources(*PARTS, "tests", "benchmarks", "examples"),
    ]


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported(path: Path) -> Iterator[str]:
    """Every module, or name in a module, that a file imports; names of the package from its root.

    ``from ..core.path import LinearPath`` in methods/nets/unet.py is
    ``onestep.methods.core.path.LinearPath``.
    """
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ("onestep", *path.parent.parts)
                assert node.level <= len(package), f"{path}:{node.lineno} leaves the package"
                kept = package[: len(package) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of_the_package(path: Path) -> list[str]:
    """What a file imports from the package, without its name in front."""
    return [name.removeprefix("onestep.") for name in imported(path) if name.startswith("onestep.")]


def test_the_walk_over_imports_sees_what_it_must() -> None:
    """The tests below would pass on an empty list."""
    assert len(sources("methods")) > 30
    assert "methods.core.path.LinearPath" in imports_of_the_package(Path("methods/shortcut.py"))
    assert "methods.core.method.AbstractMethod" in imports_of_the_package(
        Path("platform/training/assembly.py")
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_what_lies_inward(part: str) -> None:
    wrong = [
        f"{path} imports {name}"
        for path in sources(part)
        for name in imports_of_the_package(path)
        if name.split(".")[0] not in MAY_IMPORT[part] | {"__version__"}
    ]
    assert not wrong


def test_the_platform_knows_no_concrete_method() -> None:
    wrong = [
        f"{path} imports {name}"
        for path in sources("platform", "sweeps", "serving")
        for name in imports_of_the_package(path)
        if name.startswith("methods.") and not name.startswith(METHODS_FOR_PLATFORM)
    ]
    assert not wrong


def test_methods_hold_neither_files_nor_clock_nor_frameworks() -> None:
    wrong = [
        f"{path} imports {name}"
        for path in sources("methods")
        for name in imported(path)
        if name.split(".")[0] not in METHODS_USE | PURE_STANDARD | {"onestep"}
        and (str(path), name) not in OPTIONAL
    ]
    assert not wrong


def test_files_of_the_package_import_each_other_relatively() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in sources(*PARTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and (node.module or "").split(".")[0] == "onestep"
    ]
    assert not wrong


def test_one_file_alone_differentiates_forward() -> None:
    names = {"jvp", "forward_ad", "jacfwd", "linearize"}
    users = {
        str(path)
        for path in sources(*PARTS)
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and names & {alias.name for alias in node.names})
    }
    assert users == {"methods/core/calculus.py"}


def test_the_platform_folder_has_no_init_file() -> None:
    """It would shadow the standard library's platform for everything that starts at the root."""
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_standard_library_keeps_its_platform_at_the_root() -> None:
    code = "import platform; print(platform.python_version())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ".".join(map(str, sys.version_info[:3]))


def test_no_module_has_the_name_of_a_standard_one() -> None:
    """The folder platform is the one exception; it has no __init__ file and so shadows nothing."""
    folders = {parent for path in everywhere() for parent in path.parents if parent.name}
    names = {path: path.stem for path in everywhere()} | {path: path.name for path in folders}
    wrong = {str(path) for path, name in names.items() if name in sys.stdlib_module_names}
    assert wrong == {"platform", "tests/platform"}


def test_every_folder_of_code_or_configuration_is_a_declared_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in sources(*PARTS)}
    expected = {"onestep"} | {".".join(("onestep", *folder.parts)) for folder in folders}
    assert expected == set(declared["packages"])


def test_every_package_but_the_platform_has_an_init_file() -> None:
    folders = {path.parent for path in sources(*PARTS)}
    without = {str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()}
    assert without == {"platform"}


def test_no_file_or_folder_has_a_vague_name() -> None:
    wrong = [str(path) for path in everywhere() if VAGUE & {*path.parent.parts, path.stem}]
    assert not wrong


def test_nothing_but_the_command_line_prints() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in sources(*PARTS)
        if not str(path).startswith(PRINTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not wrong


def classes(*folders: str) -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in sources(*folders):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                yield path, node


def names_of(nodes: list[ast.expr]) -> set[str]:
    """The last names of expressions: ``abc.ABC`` is ABC, ``dataclass(frozen=True)`` dataclass."""
    inner = [node.func if isinstance(node, ast.Call) else node for node in nodes]
    return {ast.unparse(node).split("[")[0].rsplit(".", 1)[-1] for node in inner}


def is_abstract(node: ast.ClassDef) -> bool:
    bases = names_of(node.bases)
    is_open = {"ABC", "Protocol"} & bases or node.name.startswith(("Abstract", "_Abstract"))
    return bool(is_open) or any(
        "abstractmethod" in names_of(part.decorator_list)
        for part in node.body
        if isinstance(part, ast.FunctionDef)
    )


def is_closed(node: ast.ClassDef) -> bool:
    """Final by decorator, or of a kind that nobody subclasses."""
    is_plain = {"StrEnum", "Enum", "IntEnum", "NamedTuple", "TypedDict"} & names_of(node.bases)
    return bool(is_plain) or "final" in names_of(node.decorator_list)


def test_a_concrete_class_is_final_or_the_base_of_another() -> None:
    """Methods never extend one another; a few plain bases of networks are shared."""
    found = list(classes("methods"))
    bases = set().union(*(names_of(node.bases) for _, node in found))
    open_ = {
        f"{path}: {node.name}"
        for path, node in found
        if not (is_abstract(node) or is_closed(node) or node.name in bases)
    }
    # Blocks of networks are parts that a network holds.
    assert {name for name in open_ if not name.startswith("methods/nets/")} == set()


def test_a_method_extends_nothing_but_the_vocabulary() -> None:
    concrete = [path for path in sources("methods") if len(path.parts) == 2]
    own = {
        node.name for path in concrete for node in tree(path).body if isinstance(node, ast.ClassDef)
    }
    wrong = [
        f"{path}: {node.name}"
        for path in concrete
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and names_of(node.bases) & own
    ]
    assert not wrong


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    wrong = [str(p) for p in sources(*PARTS) if len((ROOT / p).read_text().splitlines()) > 500]
    assert not wrong


def test_the_code_is_plain_ascii() -> None:
    wrong = [str(path) for path in everywhere() if not (ROOT / path).read_bytes().isascii()]
    assert not wrong
