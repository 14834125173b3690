import json
from dataclasses import replace

import pytest

from onestep.platform.registry.record import ModelRecord
from onestep.tests.platform.registry.contract import record


def test_a_record_survives_its_json():
    full = replace(
        record("digits", parents={"teacher": "digits/1", "pairs": "sha256:1"}),
        shape=(1, 8, 8),
        classes=2,
        label_names=("zero", "one"),
        experiment={"stages": [{"name": "one"}]},
        metrics={"eval/w2": 0.5, "eval/a": 1.0},
        provenance={"samples": 1000},
        sampler={"_target_": "onestep.methods.core.sampler.Renoise"},
    )
    again = ModelRecord.from_json(full.to_json())
    assert again == full
    assert list(again.metrics) == ["eval/w2", "eval/a"]
    assert again.to_json() == full.to_json()


def test_a_record_tells_models_from_checksums_among_its_parents():
    parents = record("digits", parents={"teacher": "digits/1", "pairs": "sha256:1"}).model_parents
    assert {role: str(version) for role, version in parents.items()} == {"teacher": "digits/1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "model name must be"),
        ({"shape": ()}, "record shape must hold positive sizes"),
        ({"shape": (0,)}, "record shape must hold positive sizes"),
        ({"classes": 3, "label_names": ("a",)}, "each of its 3 classes or none, got 1"),
        ({"method": {}}, "record method must be a node"),
        ({"sampler": {"grid": 1}}, "record sampler must be a node"),
        ({"parents": {"teacher": "digits@champion"}}, "which do not move, got 'digits@champion'"),
        ({"metrics": {"eval/w2": float("nan")}}, "metric 'eval/w2' must be finite, got nan"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(record("digits"), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "object of format 1"),
        ({"wings": 2}, "unknown key 'wings'"),
        ({"seed": None, "shape": None}, "incomplete"),
    ],
)
def test_json_that_is_no_record_is_refused(change, message):
    values = json.loads(record("digits").to_json()) | change
    with pytest.raises(ValueError, match=message):
        ModelRecord.from_json(json.dumps(values))


def test_json_without_a_part_is_refused():
    values = json.loads(record("digits").to_json())
    del values["data_digest"]
    with pytest.raises(ValueError, match=r"incomplete: .*'data_digest'"):
        ModelRecord.from_json(json.dumps(values))
