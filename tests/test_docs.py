"""The documents say what the code is: papers, the tree, the trace of one step, the snippets."""

import ast
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text()
METHODS: Final = sorted(
    path.stem
    for path in (ROOT / "methods").glob("*.py")
    if path.stem != "__init__" and not path.stem.startswith("oracle")
)
CITED: Final = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
ARXIV: Final = re.compile(r"arXiv:\d{4}\.\d{4,5}v\d+")
DOCUMENTS: Final = ("README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
CARDS: Final = ("Reference", "Convention", "Cost", "Fails by")


def section(title: str) -> str:
    """The text of a section of the README, without its title."""
    start = README.index(f"## {title}\n") + len(f"## {title}\n")
    end = README.find("\n## ", start)
    return README[start : None if end < 0 else end]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def class_docstring(name: str) -> str:
    """What the one public class of a method's file says about itself."""
    module = ast.parse((ROOT / "methods" / f"{name}.py").read_text())
    public = [
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    ]
    camel = name.replace("_", "")
    chosen = [node for node in public if node.name.lower() == camel]
    assert len(chosen) == 1, f"methods/{name}.py has no class of its name"
    return ast.get_docstring(chosen[0]) or ""


def test_there_are_methods() -> None:
    """The tests below would pass on an empty list."""
    assert {"flow_matching", "mean_flow", "shortcut", "reflow"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_configuration_of_its_name(name: str) -> None:
    node = yaml.safe_load((ROOT / "methods" / "conf" / "method" / f"{name}.yaml").read_text())
    module, _, _ = node["_target_"].rpartition(".")
    assert module == f"onestep.methods.{name}"


def test_a_configuration_has_a_method_of_its_name() -> None:
    files = (ROOT / "methods" / "conf" / "method").glob("*.yaml")
    assert sorted(path.stem for path in files) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_test_that_inherits_the_contract(name: str) -> None:
    module = ast.parse((ROOT / "tests" / "methods" / f"test_{name}.py").read_text())
    bases = {
        ast.unparse(base)
        for node in module.body
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    assert {"MethodContract", "GameContract"} & bases


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("card", CARDS)
def test_a_method_says_where_it_comes_from_and_what_it_costs(name: str, card: str) -> None:
    assert re.search(rf"^{card}: \S", class_docstring(name), flags=re.MULTILINE)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_cites_a_version_of_its_paper(name: str) -> None:
    reference = class_docstring(name).split("Reference:")[1].split("Convention:")[0]
    assert ARXIV.search(reference)
    assert re.search(r"(Eq|Alg|section)[. ]", reference), "which equation or algorithm?"


def papers() -> Iterator[tuple[list[str], set[str]]]:
    """Files and papers of each row of the README's index."""
    for row in rows(section("Papers")):
        yield re.findall(r"\]\((methods/[\w/]+\.py)\)", row[0]), set(CITED.findall(row[1]))


def test_the_readme_has_one_row_for_each_method() -> None:
    linked = [files for files, _ in papers() if not files[0].startswith("methods/core/")]
    assert [len(files) for files in linked] == [1] * len(linked)
    assert sorted(files[0] for files in linked) == [f"methods/{name}.py" for name in METHODS]


def test_the_readme_cites_the_papers_that_the_methods_cite() -> None:
    for files, cited in papers():
        assert cited
        if files[0].startswith("methods/core/"):
            assert cited <= cited_in(*files)
        else:
            assert cited <= set(CITED.findall(class_docstring(Path(files[0]).stem)))


def test_the_readme_cites_every_paper_of_couplings_and_forms() -> None:
    held = [file for files, _ in papers() for file in files if file.startswith("methods/core/")]
    assert {Path(file).stem for file in held} == {"coupling", "loom", "global_ot", "generator_form"}
    assert cited_in(*held) <= set().union(*(cited for _, cited in papers()))


def cited_in(*files: str) -> set[str]:
    """Papers that files cite."""
    return {paper for file in files for paper in CITED.findall((ROOT / file).read_text())}


def test_the_comparison_of_methods_has_one_row_for_each() -> None:
    table = (ROOT / "docs" / "methods.md").read_text().split("\n## ")[0]
    linked = [re.findall(r"\]\(\.\./methods/(\w+)\.py\)", row[0]) for row in rows(table)]
    assert sorted(linked) == [[name] for name in METHODS]


def tree_paths() -> list[str]:
    """The paths of the README's tree, whose folders end in a slash and hold what is indented."""
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    for line in section("Where things are").splitlines():
        if not line.startswith("    "):
            continue
        name = line.split()[0]
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        path = (above[-1][1] if above else "") + name
        paths.append(path)
        if name.endswith("/"):
            above.append((indent, path))
    return paths


def test_the_tree_of_the_readme_lists_what_is_there() -> None:
    paths = tree_paths()
    assert len(paths) > 20
    missing = [
        path
        for path in paths
        if not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())
    ]
    assert not missing


def test_the_tree_of_the_readme_lists_every_part_and_every_method() -> None:
    code = {
        f"{path.name}/"
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.glob("**/*.py"))
    } - {"build/", "dist/"}
    expected = code | {f"methods/{name}.py" for name in METHODS}
    assert expected <= set(tree_paths())


def test_the_whole_tree_has_a_line_for_every_file_as_it_is() -> None:
    """If this fails: python docs/write_tree.py."""
    written = runpy.run_path(str(ROOT / "docs" / "write_tree.py"))["tree"]()
    assert (ROOT / "docs" / "tree.md").read_text() == written
    code = [
        path.relative_to(ROOT).as_posix()
        for part in ("methods", "platform", "sweeps", "serving", "benchmarks", "examples")
        for path in (ROOT / part).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(code) > 100
    assert all(f"(../{path}): " in written for path in code)


def definitions(path: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def calls(path: str, function: str) -> set[str]:
    """Last names of what a function calls, itself or by way of others in its file."""
    functions = {
        node.name: node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    found: set[str] = set()
    waiting = [function]
    while waiting:
        name = waiting.pop()
        called = {
            ast.unparse(node.func).rsplit(".", 1)[-1]
            for node in ast.walk(functions[name])
            if isinstance(node, ast.Call)
        }
        waiting += [each for each in called - found if each in functions]
        found |= called
    return found


def hops() -> list[tuple[str, str]]:
    """File and function of each hop of the trace."""
    found = [re.findall(r"`([^`]+)`", row[1]) for row in rows(section("One step, traced"))]
    assert [len(names) for names in found] == [2] * len(found)
    return [(names[0], names[1]) for names in found]


def test_the_trace_of_one_step_names_functions_that_exist() -> None:
    assert len(hops()) >= 5
    missing = [f"{path}: {name}" for path, name in hops() if name not in definitions(path)]
    assert not missing


def test_each_hop_of_the_trace_leads_to_the_next() -> None:
    called = {path: calls(path, name) for path, name in hops()}
    assert {"load", "run"} <= called["platform/cli.py"], "the command of an entry point"
    assert {"from_overrides", "run"} <= calls("platform/commands/train.py", "run")
    assert "launch" in calls("platform/training/sequence.py", "run")
    assert "work" in called["platform/training/launch.py"]
    assert "advance" in called["platform/training/worker.py"]
    assert "objective" in called["platform/training/learning.py"]
    assert "loss" in called["platform/training/objective.py"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    here = (ROOT / document).parent
    missing = [link for link in links if "://" not in link and not (here / link).exists()]
    assert not missing


def snippets() -> list[tuple[str, str]]:
    return [
        (f"{document}-{k}", code)
        for document in DOCUMENTS
        for k, code in enumerate(
            re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.M)
        )
    ]


def test_there_is_a_snippet() -> None:
    assert snippets()


@pytest.mark.parametrize(("name", "code"), snippets(), ids=[name for name, _ in snippets()])
def test_a_snippet_runs(
    name: str, code: str, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(empty_database, tmp_path / "home" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "home"))
    exec(compile(code, name, "exec"), {"__name__": "snippet"})


def test_the_space_on_the_page_of_sweeps_can_be_searched_and_every_kind_is_there() -> None:
    from onestep.sweeps.dimension import Kind
    from onestep.sweeps.shape import SHAPES
    from onestep.sweeps.space import Space
    from onestep.sweeps.trial import experiment_of

    page = (ROOT / "docs" / "sweeps.md").read_text()
    _, example, _ = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.M)
    space = Space.from_dict(yaml.safe_load(example))
    for _, point in space.edges[:4]:
        experiment_of(("method=alpha_flow", *space.overrides(point)))
    named = set(re.findall(r"`([\w.]+)`", page))
    assert {*Kind, *SHAPES, *(key for key in space.dimensions if "alpha" in key)} <= named | {
        "method.alpha.until"
    }


def test_the_users_own_sweep_on_the_page_of_sweeps_is_found_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onestep.sweeps.plan import Plan
    from onestep.sweeps.settings import settings_of

    page = (ROOT / "docs" / "sweeps.md").read_text()
    example, *_ = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.M)
    line = next(one for one in page.splitlines() if one.endswith("sweep=mine"))
    file = tmp_path / next(iter(re.findall(r"`(\w+/sweep/mine\.yaml)`", page)))
    file.parent.mkdir(parents=True)
    file.write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    settings = Plan.of(settings_of(shlex.split(line)[2:])).settings
    assert (settings.name, settings.trials, settings.budget.samples) == ("mine", 12, 200_000)
    assert str(settings.objectives) == "eval/w2 at 1 NFE, cost/training_s"


def test_what_the_page_of_sweeps_tries_after_training_is_what_a_sweep_tries() -> None:
    from onestep.sweeps.posthoc import PostHoc
    from onestep.sweeps.settings import settings_of

    page = (ROOT / "docs" / "sweeps.md").read_text()
    _, _, example = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.M)
    shipped = settings_of(["sweep=improved_mean_flow_posthoc"]).posthoc
    assert PostHoc.from_dict(yaml.safe_load(example)["posthoc"]) == shipped


def test_every_override_in_the_readme_names_a_configuration() -> None:
    groups = {
        "data": "platform/conf/data",
        "experiment": "platform/conf/experiment",
        "method": "methods/conf/method",
        "net": "methods/conf/net",
        "sampler": "methods/conf/sampler",
        "stages": "platform/conf/stages",
        "sweep": "sweeps/conf/sweep",
    }
    lines = [line for line in README.splitlines() if line.startswith("    onestep ")]
    assert lines
    named = [
        (group, choice)
        for command in (*lines, *re.findall(r"`(onestep [^`]+)`", README))
        for group, choice in re.findall(r"(?<![\w.])(\w+)=(\w+)", command)
        if group in groups
    ]
    assert {"stages", "experiment", "sampler", "sweep"} <= {group for group, _ in named}
    missing = [
        f"{group}={choice}"
        for group, choice in named
        if not (ROOT / groups[group] / f"{choice}.yaml").exists()
    ]
    assert missing == ["method=name"], "the one that a reader is about to write"
