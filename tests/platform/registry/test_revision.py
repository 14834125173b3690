import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from onestep.platform.registry.revision import (
    code_digest,
    code_files,
    code_revision,
    installed_versions,
)


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_outside_a_checkout_the_revision_is_unknown(tmp_path):
    assert code_revision(tmp_path) == "unknown"


def test_changed_files_show_in_the_revision(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "file").write_text("old")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert code_revision(tmp_path) == head
    (tmp_path / "untracked").write_text("new")
    assert code_revision(tmp_path) == head
    for name in ("new.py", "my net.yaml", "gr\u00f6sse.py"):
        (tmp_path / name).write_text("new")
        assert code_revision(tmp_path) == f"{head}+dirty"
        (tmp_path / name).unlink()
    (tmp_path / "file").write_text("new")
    assert code_revision(tmp_path) == f"{head}+dirty"


def test_the_digest_tells_changed_code_wherever_it_is_installed(tmp_path):
    others = ("serving/api.py", "methods/notes.md", "sweeps/conf/sweep/mine.yaml")
    for place in ("methods/one.py", "methods/conf/a.yaml", *others):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("old")
    first = code_digest(tmp_path)
    for place in others:
        (tmp_path / place).write_text("new")
    assert code_digest(tmp_path) == first
    seen = {first}
    for place in ("methods/one.py", "methods/conf/a.yaml"):
        (tmp_path / place).write_text("new")
        seen.add(code_digest(tmp_path))
    (tmp_path / "methods/one.py").rename(tmp_path / "methods/two.py")
    assert len({*seen, code_digest(tmp_path)}) == 4
    assert code_digest(tmp_path.rename(f"{tmp_path}-moved")) not in seen


def test_every_file_of_the_code_has_a_digest(tmp_path):
    for place in ("methods/one.py", "methods/conf/a.yaml", "serving/api.py"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("old")
    before = code_files(tmp_path)
    assert set(before) == {"methods/one.py", "methods/conf/a.yaml"}
    (tmp_path / "methods/one.py").write_text("new")
    after = code_files(tmp_path)
    assert {path for path in before if before[path] != after[path]} == {"methods/one.py"}


def test_a_folder_within_another_checkout_has_not_its_revision(tmp_path):
    git(tmp_path, "init")
    package = tmp_path / ".venv" / "onestep"
    package.mkdir(parents=True)
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    assert code_revision(package) == "unknown"
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert code_revision(link) == git(tmp_path, "rev-parse", "HEAD")


def test_versions_name_what_decides_about_numbers():
    versions = installed_versions()
    assert versions["torch"] == torch.__version__  # with its build, which its package may leave out
    assert versions["onestep"] == version("onestep")
    assert versions.keys() >= {"python", "ray", "mlflow"}
