import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onestep.platform.cli import main
from onestep.platform.registry.canary import Canary, CanaryState, CanaryTerms
from onestep.platform.registry.canary_ledger import CanaryLedger
from onestep.platform.registry.errors import ModelAltered, PromotionRefused, ReferenceNotFound
from onestep.platform.registry.promotion import Promotion
from onestep.platform.registry.reference import ModelVersion
from onestep.platform.registry.store import Registry
from onestep.tests.serving.model import UNET_NODE, gaussian, record_of
from onestep.tests.serving.registry import NETWORK, ORACLE, fill_registry

CHAMPION = ModelVersion.parse(NETWORK)
TERMS = CanaryTerms(percent=25.0, images=100)


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Registry:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Registry(fill_registry(tmp_path))


def started(registry: Registry) -> Canary:
    return CanaryLedger(registry).start(ORACLE, "champion", TERMS, why="to try it")


def moves(registry: Registry) -> list[tuple[str, str, str]]:
    history = registry.history("digits", "champion-canary")
    return [(one.to, json.loads(one.facts)["state"], one.why) for one in history]


def test_a_trial_is_kept_for_every_reader_and_each_move_is_in_the_history(
    registry: Registry,
) -> None:
    begun = started(registry)
    ledger = CanaryLedger(Registry(registry.connection.tracking_uri))
    assert ledger.read("digits", "champion") == begun == ledger.find("digits@champion")
    assert (str(begun.version), begun.terms, begun.state) == (ORACLE, TERMS, CanaryState.RUNNING)
    assert str(registry.current("digits", "champion-canary")) == ORACLE

    moved = ledger.move(begun, 50.0, why="more")
    assert moved.terms == replace(TERMS, percent=50.0)
    ended = ledger.end(moved, CanaryState.ROLLED_BACK, why="slow", numbers={"latency": 3.0})
    assert (ended.state, ended.why, ended.numbers) == ("rolled_back", "slow", {"latency": 3.0})
    assert registry.current("digits", "champion-canary") is None
    assert str(registry.current("digits", "champion")) == NETWORK
    assert moves(registry) == [
        (ORACLE, "running", "to try it"),
        (ORACLE, "running", "more"),
        ("", "rolled_back", "slow"),
    ]
    assert started(registry).is_running


def test_a_canary_must_know_the_guidance_scales_of_its_champion(registry: Registry) -> None:
    run_id = registry.entry(NETWORK).run_id
    trained = {
        highest: registry.register(
            replace(
                record_of(),
                method={
                    "_target_": "onestep.methods.improved_mean_flow.ImprovedMeanFlow",
                    "guidance": {
                        "_target_": "onestep.methods.core.guidance.GuidanceScales",
                        "highest": highest,
                    },
                },
            ),
            gaussian().state_dict(),
            run_id=run_id,
        )
        for highest in (3.0, 4.0, 5.0)
    }
    registry.promote(trained[4.0], "champion", why="it takes a scale")
    ledger = CanaryLedger(registry)
    for other, known in ((ORACLE, "none"), (str(trained[3.0]), r"1\.\.3")):
        with pytest.raises(PromotionRefused, match=rf"1\.\.4, got {other} with {known}$"):
            ledger.start(other, "champion", TERMS, why="to try it")
    assert ledger.start(str(trained[5.0]), "champion", TERMS, why="to try it").is_running


def test_a_promotion_moves_the_alias_and_ends_the_trial(registry: Registry) -> None:
    ledger = CanaryLedger(registry)
    ledger.promote(started(registry), champion=CHAMPION, why="100 images", numbers={"images": 100})
    assert str(registry.current("digits", "champion")) == ORACLE
    assert registry.history("digits", "champion")[-1].why == "100 images"
    assert moves(registry)[-1] == ("", "promoted", "100 images")
    with pytest.raises(PromotionRefused, match="must have a canary that runs, got none"):
        ledger.find("champion")


def test_a_canary_is_not_promoted_over_a_champion_that_it_was_not_judged_against(
    registry: Registry,
) -> None:
    ledger, seen = CanaryLedger(registry), started(registry)
    run_id = registry.entry(NETWORK).run_id
    other = registry.register(record_of(), gaussian().state_dict(), run_id=run_id)
    registry.promote(other, "champion", why="a person knows better")
    with pytest.raises(PromotionRefused, match=r"must mean digits/1, .* got digits/3"):
        ledger.promote(seen, champion=CHAMPION, why="100 images", numbers={})
    assert registry.current("digits", "champion") == other
    assert ledger.find("champion") == seen


def test_a_trial_that_is_stopped_while_it_is_promoted_stays_stopped(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, seen, write = CanaryLedger(registry), started(registry), registry.ledger.write

    def stop_first(name: str, alias: str, **fields: Any) -> Promotion:
        monkeypatch.setattr(registry.ledger, "write", write)
        ledger.end(seen, CanaryState.STOPPED, why="enough", numbers={})
        return write(name, alias, **fields)

    monkeypatch.setattr(registry.ledger, "write", stop_first)
    with pytest.raises(PromotionRefused, match="has been moved meanwhile"):
        ledger.promote(seen, champion=CHAMPION, why="100 images", numbers={})
    assert registry.current("digits", "champion") == CHAMPION
    assert moves(registry)[-1] == ("", "stopped", "enough")


def test_of_two_services_that_end_a_trial_the_second_is_told(registry: Registry) -> None:
    ledger, seen = CanaryLedger(registry), started(registry)
    ledger.end(seen, CanaryState.ROLLED_BACK, why="slow", numbers={})
    with pytest.raises(PromotionRefused, match="has been moved meanwhile"):
        ledger.end(seen, CanaryState.ROLLED_BACK, why="slow", numbers={})
    assert len(moves(registry)) == 2


def test_what_cannot_stand_in_for_the_champion_is_refused(registry: Registry) -> None:
    run_id = registry.entry(NETWORK).run_id
    larger = record_of(net=UNET_NODE, shape=(1, 16, 16))
    fewer = record_of(classes=2, label_names=("zero", "one"))
    weights = gaussian().state_dict()
    ledger = CanaryLedger(registry)
    refusals = {
        NETWORK: "must be another version than the champion, got digits/1",
        str(registry.register(larger, weights, run_id=run_id)): r"noise shape .* got \(1, 16, 16\)",
        str(registry.register(fewer, weights, run_id=run_id)): "classes .* got 2 of digits/4",
        ORACLE: "one canary at a time, got digits/2 beside digits/2",
    }
    started(registry)
    for version, message in refusals.items():
        with pytest.raises(PromotionRefused, match=message):
            ledger.start(version, "champion", TERMS, why="a test")
    with pytest.raises(ReferenceNotFound, match="there is no model digits/9"):
        ledger.start("digits/9", "champion", TERMS, why="a test")
    with pytest.raises(PromotionRefused, match="a version of the model of faces@champion"):
        ledger.start(ORACLE, "faces@champion", TERMS, why="a test")
    assert len(moves(registry)) == 1


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"percent": 0.0}, "percent must be above 0 and at most 100, got 0"),
        ({"percent": 101.0}, "got 101"),
        ({"percent": float("nan")}, "got nan"),
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"max_errors": 1.0}, r"max_errors must be in \[0, 1\), got 1"),
        ({"max_latency": 0.0}, "max_latency must be positive, got 0"),
        ({"max_drift": 1.1}, r"max_drift must be in \[0, 1\], got 1.1"),
    ],
)
def test_terms_out_of_range_are_refused(term: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CanaryTerms(**term)  # type: ignore[arg-type]


def test_an_alias_moved_by_other_means_is_no_trial_and_keeps_none_from_beginning(
    registry: Registry,
) -> None:
    started(registry)
    with pytest.raises(PromotionRefused, match="alone, got champion-canary"):
        registry.promote(ORACLE, "champion-canary", why="by hand")
    registry.ledger.write("digits", "champion-canary", to=CHAMPION, why="by hand", who=None)
    with pytest.raises(ModelAltered, match="must be moved by `onestep canary` alone"):
        CanaryLedger(registry).read("digits", "champion")
    begun = started(registry)
    assert CanaryLedger(registry).read("digits", "champion") == begun


def test_an_entry_without_facts_has_the_text_of_its_other_fields() -> None:
    entry = Promotion(
        alias="champion", number=1, at="now", who="ada", why="best", source="", to="digits/1"
    )
    assert "facts" not in entry.to_json()
    assert Promotion.from_json(entry.to_json()) == entry
    assert Promotion.from_json(replace(entry, facts="{}").to_json()).facts == "{}"


def test_the_command_begins_moves_tells_and_ends(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = ["canary", "--tracking-uri", registry.connection.tracking_uri]
    assert main([*canary, "start", ORACLE, "champion", "--percent", "5", "--why", "new"]) == 0
    assert main([*canary, "move", "champion", "--percent", "20", "--why", "more"]) == 0
    assert CanaryLedger(registry).find("champion").terms == CanaryTerms(percent=20.0)
    assert main([*canary, "status", "digits@champion"]) == 0
    assert main([*canary, "stop", "champion", "--why", "enough"]) == 0
    out = capsys.readouterr().out
    assert "digits/2 gets 5 % of the requests to champion" in out
    assert "digits/2 beside digits@champion: running; 20 % of the requests; more" in out
    assert moves(registry)[-1] == ("", "stopped", "enough")
    assert main([*canary, "stop", "champion", "--why", "again"]) == 2
    assert "must have a canary that runs, got none" in capsys.readouterr().err
