"""Writes docs/tree.md, every file with the first line of what it says: docs/write_tree.py."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TREE: Final = ROOT / "docs" / "tree.md"
PARTS: Final = ("methods", "platform", "sweeps", "serving", "benchmarks", "examples")
HEAD: Final = """# Every file

Written by `python docs/write_tree.py` from the first line of each file. The tests mirror these
folders: `tests/platform/data/test_mnist.py` tests `platform/data/mnist.py`.
"""


def sentence(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{path} says nothing about itself"
    return text.splitlines()[0].replace("``", "`")


def section(folder: Path) -> list[str]:
    """A folder's own files, then its configurations by name."""
    modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    lines = [f"- [{path.name}](../{path.relative_to(ROOT)}): {sentence(path)}" for path in modules]
    names = [path.stem for path in sorted(folder.glob("*.yaml"))]
    return lines + ([f"- YAML: {', '.join(names)}"] if names else [])


def tree() -> str:
    """The whole page."""
    page = [HEAD]
    for part in PARTS:
        folders = [ROOT / part, *sorted(path for path in (ROOT / part).rglob("*") if path.is_dir())]
        for folder in folders:
            if lines := section(folder):
                page.append("\n".join([f"## {folder.relative_to(ROOT)}/", "", *lines, ""]))
    return "\n".join(page)


if __name__ == "__main__":
    TREE.write_text(tree())
