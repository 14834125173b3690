import argparse
import json
from collections.abc import Callable

import pytest

from onestep.platform.cli import USER_ERROR, main
from onestep.platform.commands.registry import Registry as Command
from onestep.platform.registry.entry import EVALUATION_FOLDER
from onestep.platform.registry.errors import PromotionRefused, ReferenceNotFound
from onestep.platform.registry.run import Run
from onestep.platform.registry.store import Registry
from onestep.tests.platform.registry.contract import WEIGHTS, facts, record

Ask = Callable[..., list[str]]


@pytest.fixture
def registry(local_registry) -> Registry:
    return local_registry()


@pytest.fixture
def ask(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs the command as the shell would and gives the lines that it prints."""

    def ask(*words: str) -> list[str]:
        parser = argparse.ArgumentParser()
        command = Command()
        command.configure(parser)
        uri = registry.connection.tracking_uri
        assert command.run(parser.parse_args(["--tracking-uri", uri, *words])) == 0
        return capsys.readouterr().out.splitlines()

    return ask


@pytest.fixture
def models(registry: Registry) -> None:
    run = Run.start(registry.connection, facts("digits"))
    teacher = record("digits", metrics={"eval/w2": 0.92})
    student = record("digits", parents={"teacher": "digits/1"}, metrics={"eval/w2": 0.64})
    for one in (teacher, student):
        registry.register(one, WEIGHTS, run_id=run.run_id)


def test_an_empty_list_says_of_what(ask):
    assert ask("list") == ["no models are registered yet"]
    assert ask("list", "faces") == ["no models named faces are registered yet"]


@pytest.mark.usefixtures("models")
def test_models_are_listed_in_columns(ask, registry):
    registry.promote("digits/2", "champion", why="best")
    header, first, second = ask("list")
    assert header.split()[:3] == ["model", "method", "weights"]
    assert first.split()[:3] == ["digits/1", "MeanFlow", "online"]
    assert second.split()[-3:] == ["champion", "eval/w2", "0.64"]
    assert first.index("eval/w2") == second.index("eval/w2") == header.index("metrics")


@pytest.mark.usefixtures("models")
def test_a_record_that_cannot_be_read_is_listed_as_such_among_the_others(ask, registry):
    client = registry.connection.client
    client.set_model_version_tag("digits", "1", "onestep.record", "{}")
    _, first, second = ask("list")
    assert first.split()[0] == "digits/1"
    assert first.endswith(
        "cannot be read: the record of digits/1 is not the one that was registered"
    )
    assert second.split()[:2] == ["digits/2", "MeanFlow"]


@pytest.mark.usefixtures("models")
def test_an_evaluation_of_a_newer_version_is_listed_as_such_too(ask, registry):
    client = registry.connection.client
    client.set_model_version_tag("digits", "1", f"{EVALUATION_FOLDER}/later", '{"newer": 1}')
    _, first, _ = ask("list")
    assert "cannot be read: an evaluation was written by another version of onestep" in first


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("list", "digits"),
        ("show", "digits/2"),
        ("lineage", "digits/2", "--metric", "eval/w2"),
        ("history", "digits@champion"),
        ("promote", "digits/2", "best", "--why", "best", "--dry-run"),
    ],
    ids=" ".join,
)
def test_every_action_takes_the_store_as_an_override(
    words, ask, registry, tmp_path, monkeypatch, capsys
):
    expected = ask(*words)
    # As after `onestep train storage.tracking_uri=...`: the environment does not name the store.
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "elsewhere"))
    uri = registry.connection.tracking_uri
    assert main(["registry", *words, f"storage.tracking_uri={uri}"]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "seed=1"], "overrides must be of storage.tracking_uri, got seed"),
        (["list", "digits", "moons"], "list takes the name of one model, got digits, moons"),
        (
            ["--tracking-uri", "sqlite:///a.db", "list", "storage.tracking_uri=sqlite:///b.db"],
            "give either --tracking-uri or storage.tracking_uri, got both",
        ),
    ],
)
def test_other_words_of_an_action_are_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["registry", *words]) == USER_ERROR
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("models")
def test_one_model_is_shown_with_all_that_is_known(ask):
    shown = dict(line.split("  ", 1) for line in ask("show", "digits/2"))
    assert shown["parent teacher"].strip() == "digits/1"
    assert shown["eval/w2"].strip() == "0.64"
    text = "\n".join(ask("show", "digits/2", "--json"))
    assert json.loads(text)["parents"] == {"teacher": "digits/1"}


@pytest.mark.usefixtures("models")
def test_a_dry_promotion_asks_the_gate_and_moves_nothing(ask):
    words = ("promote", "digits/2", "champion", "--why", "best", "--dry-run", "--metric", "eval/w2")
    assert ask(*words, "--at-most", "0.7") == ["champion would mean digits/2 (now: nothing)"]
    with pytest.raises(PromotionRefused, match=r"the gate is eval/w2 <= 0\.5"):
        ask(*words, "--at-most", "0.5")
    assert ask("history", "digits@champion") == ["digits@champion has never been promoted"]


@pytest.mark.usefixtures("models")
def test_a_dry_import_prints_the_experiment_and_registers_nothing(ask, registry):
    words = ("--mapping", "none.yaml", "--licence", "MIT", "--source", "here", "--dry-run")
    printed = json.loads("\n".join(ask("import", "none", "data=digits", "method=edm", *words)))
    assert printed["method"]["_target_"].endswith(".EDM")
    assert len(registry.list()) == 2


def test_a_dry_import_opens_no_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ("--mapping", "none.yaml", "--licence", "MIT", "--source", "here", "--dry-run")
    assert main(["registry", "import", "none", "data=digits", "method=edm", *words]) == 0
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("models")
def test_promotion_lineage_and_history_tell_one_story(ask):
    assert ask("promote", "digits/1", "champion", "--why", "first", "--who", "ada") == [
        "champion means digits/1 (before: nothing)"
    ]
    gate = ("--metric", "eval/w2", "--at-most", "0.7")
    assert ask("promote", "digits/2", "champion", "--why", "better", "--who", "emmy", *gate) == [
        "champion means digits/2 (before: digits/1)"
    ]
    assert ask("promote", "digits/2", "champion", "--why", "once more") == [
        "champion means digits/2 already; nothing was changed"
    ]
    assert ask("lineage", "champion") == [
        "digits/2 MeanFlow [champion] (eval/w2 0.64)",
        "+-- teacher: digits/1 MeanFlow (eval/w2 0.92)",
    ]
    for alias in ("champion", "digits@champion"):
        rows = [line.split()[2:] for line in ask("history", alias)[1:]]
        assert rows == [
            ["-", "digits/1", "ada", "-", "first"],
            ["digits/1", "digits/2", "emmy", "eval/w2", "<=", "0.7", "better"],
        ]


@pytest.mark.usefixtures("models")
def test_an_alias_moved_by_other_means_is_noted(ask, registry):
    ask("promote", "digits/1", "champion", "--why", "first")
    registry.connection.client.set_registered_model_alias("digits", "champion", "2")
    assert ask("history", "champion")[-1].startswith("note: digits@champion now means digits/2")


@pytest.mark.usefixtures("models")
def test_a_promotion_that_is_not_allowed_is_refused(ask):
    with pytest.raises(PromotionRefused, match=r"digits/1 has eval/w2 = 0\.92"):
        ask("promote", "digits/1", "a", "--why", "b", "--metric", "eval/w2", "--at-most", "0.7")
    with pytest.raises(ValueError, match="name it with --metric"):
        ask("promote", "digits/1", "champion", "--why", "best", "--at-most", "0.7")
    with pytest.raises(ReferenceNotFound, match="there is no model digits/9"):
        ask("promote", "digits/9", "champion", "--why", "best")
    assert ask("history", "digits@champion") == ["digits@champion has never been promoted"]
