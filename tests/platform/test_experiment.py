import json
from dataclasses import asdict
from typing import Any

import pytest

from onestep.methods.core.precision import Precision
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment, Parents, Training, Workers, module_of


def values(**changes: Any) -> dict[str, Any]:
    return compose("train", ["net=mlp", "method=shortcut"]) | changes


def test_an_experiment_survives_the_way_to_a_worker() -> None:
    composed = values()
    composed.pop("stages", None)
    experiment = Experiment.from_dict(composed, ("net=mlp", "method=shortcut"))
    there = json.loads(json.dumps(experiment.to_dict()))
    back = Experiment.from_dict(there)
    assert back.to_dict() == experiment.to_dict()
    assert back.training == experiment.training
    assert back.overrides == ("net=mlp", "method=shortcut")
    assert back.name == "digits-shortcut"


def test_a_node_is_called_by_its_file() -> None:
    assert module_of({"_target_": "onestep.methods.mean_flow.MeanFlow"}) == "mean_flow"


def test_settings_count_in_samples_and_the_loop_in_steps() -> None:
    training = Training(samples=1000, batch_size=64)
    assert training.steps == 15
    assert training.every(640) == 10
    assert training.every(10) == 1


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    training = {"samples": 2e5, "batch_size": 100, "ema_half_lives": [1000, 5e4]}
    composed = values(training=training)
    composed.pop("stages", None)
    got = Experiment.from_dict(composed).training
    assert (got.samples, type(got.samples)) == (200_000, int)
    assert got.ema_half_lives == (1000.0, 50_000.0)
    assert got.precision is Precision.FLOAT32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": 10}, "at least one batch of 64, got 10"),
        ({"batch_size": 0}, r"training\.batch_size must be at least 1, got 0"),
        ({"shards": 5}, "multiple of training.shards, got 64 and 5"),
        ({"clip_norm": -1.0}, "at least 0, got -1.0"),
        ({"ema_half_lives": ()}, "one or more positive numbers"),
        ({"ema_half_lives": (0.0,)}, "one or more positive numbers"),
        ({"ema_ramp": 0.0}, "ema_ramp must be positive, got"),
        ({"ema_served": 1}, "ema_served must be below 1, got 1"),
        ({"ema_snapshots": -1}, r"ema_snapshots must be in \[0, "),
        ({"precision": "half"}, "one of float32, bfloat16, float64, got 'half'"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1, got 0"),
    ],
)
def test_training_out_of_range_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Training(**({"samples": 640, "batch_size": 64} | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": 3}, "training must be settings by name .*, got 3"),
        ({"training": {"samples": 64}}, "training lacks batch_size"),
        ({"workers": {"num_workers": 1.5}}, "workers.num_workers must be a whole number, got 1.5"),
        ({"workers": {"num_workers": True}}, "must be a whole number, got True"),
        ({"workers": {"num_workers": 0}}, "workers.num_workers must be at least 1, got 0"),
        ({"parents": {"tutor": "a/1"}}, "parents has no setting tutor, allowed: initial, teacher"),
        ({"parents": {"teacher": ["a/1"]}}, r"parents.teacher must be a text, got \['a/1'\]"),
        ({"evaluation": {"nfes": 4}}, "evaluation.nfes must be a list, got 4"),
        ({"evaluation": {"nfes": [0]}}, "evaluation.nfes must be one or more whole numbers"),
        ({"evaluation": {"nfes": []}}, "evaluation.nfes must be one or more whole numbers"),
        ({"evaluation": {"samples": 4}}, "evaluation.samples must be 0, for 2000, or at least 8"),
        ({"evaluation": {"samples": -1}}, "evaluation.samples must be 0, for 2000, or at least 8"),
        ({"pairs": {"count": 0}}, "pairs.count must be at least 1, got 0"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"method": None}, "method must be a node that names its class, got None"),
        ({"speed": 1}, "an experiment has no part speed, allowed: seed, data,"),
        ({"run": "a/b"}, "run must be the name of a folder .* got 'a/b'"),
        ({"name": "../x"}, r"name must be the name of a folder .* got '\.\./x'"),
    ],
)
def test_an_experiment_out_of_shape_is_refused(changes: dict[str, Any], sentence: str) -> None:
    composed = values(**changes)
    composed.pop("stages", None)
    with pytest.raises(ValueError, match=sentence):
        Experiment.from_dict(composed)


def test_several_workers_need_ray_and_one_does_not() -> None:
    assert not Workers().uses_ray
    assert Workers(ray=True).uses_ray
    assert Workers(num_workers=2).uses_ray


def test_only_named_parents_are_frozen_models() -> None:
    assert Parents(teacher="a/1", initial="b/1").frozen == {"teacher": "a/1"}


def test_the_defaults_of_the_records_are_those_of_the_file() -> None:
    composed = compose("train")
    for name, record in (("workers", Workers()), ("parents", Parents())):
        assert composed[name] == asdict(record)
