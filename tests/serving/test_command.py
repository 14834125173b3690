import argparse
import json
import shutil
from pathlib import Path

import pytest

from onestep.benchmarks.peer_engine import BUCKET
from onestep.benchmarks.served import THROUGHPUT
from onestep.serving.command import Serve


def run(*arguments: str) -> int:
    command = Serve()
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


def test_a_dry_run_prints_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("serve.port=0", "serve.model=digits/3", "--dry-run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["port"], printed["host"]) == (0, "127.0.0.1")
    assert printed["app"]["model"] == "digits/3"


@pytest.mark.parametrize("reference", ["digits/3", "digits@champion", "best"])
def test_a_word_alone_names_the_model(reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(reference, "serve.port=0", "--dry-run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["app"]["model"], printed["port"]) == (reference, 0)


def test_several_words_name_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("digits@champion", "serve.port=0", "digits/2", "--dry-run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["app"]["models"] == ["digits@champion", "digits/2"]


@pytest.mark.parametrize("word", ["serve.model=digits/1", "serve.models=[digits/2,digits/1]"])
def test_models_named_twice_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"as words or in serve\.models, got both: digits/1"):
        run("digits/1", word, "--dry-run")


@pytest.mark.parametrize("group", ["local", "throughput"])
def test_every_preset_is_one_that_the_settings_take(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"serve={group}", "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["app"]["model"] == "champion"


def test_the_preset_for_many_users_is_the_one_whose_speed_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(THROUGHPUT, "--dry-run") == 0
    app = json.loads(capsys.readouterr().out)["app"]
    assert (app["pin"], app["apart"], app["replicas"], app["bucket"]) == (True, True, 1, BUCKET)


@pytest.mark.parametrize(
    ("words", "variable", "warned"),
    [
        (["serve=cluster"], None, True),
        (["serve=cluster", "serve.keys=keys.yaml"], None, False),
        (["serve=cluster"], "keys.yaml", False),
        ([], None, False),
    ],
)
def test_a_file_of_a_service_that_is_open_to_all_is_warned_of(
    words: list[str],
    variable: str | None,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONESTEP_KEYS", raising=False)
    if variable is not None:
        monkeypatch.setenv("ONESTEP_KEYS", variable)
    assert run(*words, "--config-file") == 0
    assert ["asks for no key" in record.getMessage() for record in caplog.records] == [
        True
    ] * warned


@pytest.mark.parametrize("override", ["serve.prot=1", "serve.port=http", "serve=fast", "port=1"])
def test_a_bad_override_is_refused_before_anything_starts(override: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        run(override, "--dry-run")


def test_a_missing_champion_is_refused_and_leaves_no_server(
    empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with pytest.raises(ValueError, match="champion"):
        run(f"serve.tracking_uri=sqlite:///{tmp_path}/mlflow.db", "serve.port=0")
