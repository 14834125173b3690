import argparse
import hashlib
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from onestep.serving.key_command import KeyCommand
from onestep.serving.keys import ENVIRONMENT, KeyRing, add_key, key_file, read_keys, remove_key


def run(*arguments: str) -> int:
    command = KeyCommand()
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


def test_a_new_key_is_printed_once_and_only_its_digest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.yaml"
    assert run("new", "ada", "--file", str(path), "--images-per-minute", "60") == 0
    token = capsys.readouterr().out.strip()
    assert len(token) == len("onestep-") + 43  # 256 bits, six to a character
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text()
    (key,) = read_keys(path)
    assert key.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert (key.name, key.images_per_minute, key.requests_per_minute) == ("ada", 60, None)


def test_keys_are_listed_and_removed_and_the_others_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.yaml"
    monkeypatch.setenv(ENVIRONMENT, str(path))
    for name in ("ada", "bob"):
        run("new", name)
    kept = read_keys(path)[1]
    capsys.readouterr()
    run("remove", "ada")
    run("list")
    assert capsys.readouterr().out.splitlines() == [
        "removed ada",
        "bob  images per minute: any  requests per minute: any",
    ]
    assert read_keys(path) == (kept,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_changed_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.yaml"
    add_key(path, "ada")
    before = path.read_bytes()
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for words, message in (
        (("new", "ada", "--file", str(path)), "must be new, got ada"),
        (("new", "a b", "--file", str(path)), r"must be 1\.\.64 of"),
        (("new", "bob", "--file", str(path), "--images-per-minute", "0"), "in 1..100000"),
        (("remove", "bob", "--file", str(path)), "there are: ada"),
        (("remove", "bob", "--file", str(tmp_path / "none")), "must exist"),
        (("new", "bob"), "named by --file or ONESTEP_KEYS"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*words)
    assert path.read_bytes() == before


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    names = [f"user{k}" for k in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: add_key(path, name), names))
    assert sorted(key.name for key in read_keys(path)) == sorted(names)


@pytest.mark.parametrize(
    "text",
    [
        "keys: [SECRET]",
        "keys: SECRET",
        "SECRET",
        "{SECRET",
        "keys: [{name: ada, sha256: SECRET}]",
        "keys: [{name: SECRET SECRET, sha256: x}]",
    ],
)
def test_a_broken_file_is_refused_without_what_stands_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"must") as caught:
        read_keys(path)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "sha256"])
def test_two_keys_of_one_name_or_digest_are_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "keys.yaml"
    rows = [{"name": f"user{k}", "sha256": f"{k}" * 64} for k in range(2)]
    rows[1][field] = rows[0][field]
    path.write_text(yaml.safe_dump({"keys": rows}))
    with pytest.raises(ValueError, match=f"a {field} of its own"):
        read_keys(path)


def test_a_ring_follows_its_file_and_looks_once_a_second(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.yaml", [0.0]
    ada = add_key(path, "ada").encode()
    ring = KeyRing(path, clock=lambda: now[0])
    found = ring.find(ada)
    assert found is not None
    assert found.name == "ada"
    bob = add_key(path, "bob").encode()
    remove_key(path, "ada")
    now[0] = 0.9
    assert ring.find(ada) == found
    assert ring.find(bob) is None
    now[0] = 1.0
    assert ring.find(ada) is None
    assert ring.find(bob) is not None


@pytest.mark.parametrize("harm", ["broken", "gone"])
def test_a_broken_file_keeps_the_keys_and_says_why_once(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = tmp_path / "keys.yaml", [0.0]
    token = add_key(path, "ada").encode()
    ring = KeyRing(path, clock=lambda: now[0])
    good = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_text("keys: [")
    for now[0] in (1.0, 2.0, 3.0):
        assert ring.find(token) is not None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("the keys stay as they were: ")
    path.write_bytes(good)
    add_key(path, "bob")
    remove_key(path, "ada")
    now[0] = 4.0
    assert ring.find(token) is None


def test_a_key_is_revoked_though_its_file_could_not_be_read_when_it_changed(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.yaml", [0.0]
    token = add_key(path, "ada").encode()
    add_key(path, "bob")
    ring = KeyRing(path, clock=lambda: now[0])
    remove_key(path, "ada")
    found, good = path.stat(), path.read_bytes()
    for now[0], content in ((1.0, b"[" * len(good)), (2.0, good)):
        path.write_bytes(content)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as if nothing had changed
        assert (ring.find(token) is None) == (content == good)


def test_the_settings_or_else_the_environment_name_the_file(tmp_path: Path) -> None:
    environment = {ENVIRONMENT: "from_environment"}
    assert key_file(None, {}) is None
    assert key_file(None, environment) == f"{os.getcwd()}/from_environment"
    assert key_file(f"{tmp_path}/keys", environment) == f"{tmp_path}/keys"
