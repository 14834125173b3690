"""What the registry knows of a version, as /v1/models tells it."""

from dataclasses import replace

import pytest

from onestep.platform.registry.store import Registry
from onestep.serving.known import Known, known_of
from onestep.serving.schema import Ancestor
from onestep.tests.serving.model import record_of, unet
from onestep.tests.serving.registry import NETWORK, ORACLE

ORIGIN = {"licence": "MIT", "source": "https://example.org/unet", "sha256": "0" * 64}


def registered(registry: Registry, **changes: object) -> str:
    run_id = registry.entry(NETWORK).run_id
    record = replace(record_of(), **changes)  # type: ignore[arg-type]
    return str(registry.register(record, unet().state_dict(), run_id=run_id))


def test_the_lineage_goes_back_to_the_beginning_and_has_each_version_once(uri: str) -> None:
    registry = Registry(uri)
    pairs = "sha256:12ab"
    flow = {"_target_": "onestep.methods.reflow.Reflow"}
    parents = {"teacher": NETWORK, "initial": NETWORK, "pairs": pairs}
    middle = registered(registry, parents=parents, method=flow, data_digest="1" * 64)
    last = registered(registry, parents={"teacher": middle, "weak": ORACLE})
    lineage = known_of(registry, last).lineage
    assert [one.version for one in lineage] == [middle, ORACLE, NETWORK]
    assert lineage[0] == Ancestor(
        version=middle,
        method="Reflow",
        weights_sha256=registry.entry(middle).files.weights_sha256,
        data_digest="1" * 64,
        parents=parents,
    )
    assert known_of(registry, NETWORK).lineage == ()


def test_an_ancestor_that_the_registry_cannot_tell_any_more_is_told_by_its_version(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(uri)
    child = registered(registry, parents={"teacher": ORACLE, "initial": NETWORK})
    name, _, number = ORACLE.partition("/")
    registry.connection.client.delete_model_version(name, number)
    lineage = known_of(registry, child).lineage
    assert lineage[0] == Ancestor(version=ORACLE)
    assert lineage[1].method == "MeanFlow"
    assert f"the lineage of {child} ends early" in caplog.text


def test_the_card_has_what_it_takes_to_trust_and_repeat_a_version(uri: str) -> None:
    registry = Registry(uri)
    version = registered(registry, seed=7, revision="b50d320", ema="0.05", origin=ORIGIN)
    entry = registry.entry(version)
    card = known_of(registry, version).card
    assert card is not None
    assert card.model_dump() == {
        "registered": entry.created.isoformat(timespec="seconds"),
        "network": "GaussianMap",
        "weights": "0.05",
        "weights_sha256": entry.files.weights_sha256,
        "record_sha256": entry.files.record_sha256,
        "data_digest": "0" * 64,
        "seed": 7,
        "revision": "b50d320",
        "licence": "MIT",
        "source": "https://example.org/unet",
    }


def test_a_source_that_is_a_folder_of_a_machine_is_told_to_nobody(uri: str) -> None:
    registry = Registry(uri)
    version = registered(registry, origin=ORIGIN | {"source": "/home/ada/unet"})
    card = known_of(registry, version).card
    assert card is not None
    assert (card.licence, card.source) == ("MIT", None)


def test_a_model_that_is_in_no_registry_has_no_card() -> None:
    assert (Known().card, Known().lineage) == (None, ())
