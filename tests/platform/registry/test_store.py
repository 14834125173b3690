from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestep.platform.registry.errors import ModelAltered, ReferenceNotFound
from onestep.platform.registry.run import Run
from onestep.platform.registry.store import Registry
from onestep.tests.platform.registry.contract import WEIGHTS, StoreContract, facts, record


class TestSqlite(StoreContract):
    @pytest.fixture
    def registry(self, local_registry) -> Registry:
        return local_registry()


@pytest.fixture
def registry(local_registry) -> Registry:
    return local_registry()


@pytest.fixture
def run(registry: Registry) -> Run:
    return Run.start(registry.connection, facts("digits"))


def files(tmp_path: Path, name: str) -> list[Path]:
    return sorted((tmp_path / "home" / "artifacts").rglob(name))


def test_a_model_outlives_the_process_that_registered_it(local_registry, run):
    first, second = local_registry(), local_registry()
    version = first.register(record("digits"), WEIGHTS, run_id=run.run_id)
    assert torch.equal(second.load(version).weights["net.bias"], WEIGHTS["net.bias"])


def test_artifacts_lie_beside_the_database(registry, run, tmp_path):
    registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    assert len(files(tmp_path, "weights.safetensors")) == len(files(tmp_path, "model.json")) == 1


@pytest.mark.parametrize("damage", [lambda old: old[:-1], lambda old: old[:-1] + b"\x01"])
@pytest.mark.parametrize("file", ["weights.safetensors", "model.json"])
def test_an_altered_or_truncated_file_is_refused(registry, run, tmp_path, file, damage):
    version = registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    (path,) = files(tmp_path, file)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelAltered, match=f"{file} of digits/1 was altered or truncated"):
        registry.load(version)


def test_a_model_whose_files_are_gone_is_refused(registry, run, tmp_path):
    version = registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    files(tmp_path, "weights.safetensors")[0].unlink()
    with pytest.raises(ModelAltered, match="files of digits/1 are missing"):
        registry.load(version)


def test_an_altered_record_is_refused(registry, run):
    version = registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    text = record("digits", metrics={"eval/w2": 0.0}).to_json()
    registry.connection.client.set_model_version_tag("digits", "1", "onestep.record", text)
    with pytest.raises(ModelAltered, match="the record of digits/1"):
        registry.entry(version)


def test_a_foreign_model_is_neither_listed_nor_loaded(registry, run):
    client = registry.connection.client
    client.create_registered_model("foreign")
    source = client.get_run(run.run_id).info.artifact_uri
    client.create_model_version("foreign", source, run_id=run.run_id)
    assert registry.list() == ()
    with pytest.raises(ReferenceNotFound, match="foreign/1 was not registered by onestep"):
        registry.load("foreign/1")


def test_tied_weights_are_kept(registry, run):
    tied = {"encoder": WEIGHTS["net.bias"], "decoder": WEIGHTS["net.bias"]}
    version = registry.register(record("digits"), tied, run_id=run.run_id)
    assert registry.load(version).weights.keys() == tied.keys()


def test_a_model_without_weights_is_refused(registry, run):
    with pytest.raises(ValueError, match="a version of 'digits' needs weights"):
        registry.register(record("digits"), {}, run_id=run.run_id)


def test_a_model_of_an_unknown_run_is_refused(registry):
    with pytest.raises(ReferenceNotFound, match="there is no run 'nothing'"):
        registry.register(record("digits"), WEIGHTS, run_id="nothing")


def test_a_parent_that_is_deleted_later_is_shown_as_such(registry, run):
    teacher = registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    parents = {"teacher": str(teacher)}
    student = registry.register(record("digits", parents=parents), WEIGHTS, run_id=run.run_id)
    registry.connection.client.delete_model_version("digits", "1")
    assert registry.lineage(student).render().splitlines() == [
        "digits/2 MeanFlow",
        "+-- teacher: digits/1 (no longer registered)",
    ]


def test_files_that_cannot_be_written_leave_no_version_behind(registry, run, tmp_path):
    (folder,) = (tmp_path / "home" / "artifacts" / "digits" / run.run_id).iterdir()
    (folder / "models").write_text("where the folder of models would be")
    with pytest.raises(OSError, match="models"):
        registry.register(record("digits"), WEIGHTS, run_id=run.run_id)
    assert registry.list() == ()
    assert files(tmp_path, "*.safetensors") == []


def test_a_record_that_no_tag_can_hold_is_refused(registry, run):
    long = replace(record("digits"), experiment={"note": "x" * 100_000})
    with pytest.raises(ValueError, match="at most 100000 characters, got 10"):
        registry.register(long, WEIGHTS, run_id=run.run_id)
    assert registry.list() == ()
