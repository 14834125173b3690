"""What every store of runs and models has to keep, whether a file or a server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from onestep.platform.registry.errors import (
    ModelAltered,
    PromotionRefused,
    ReferenceNotFound,
)
from onestep.platform.registry.gate import Gate
from onestep.platform.registry.record import ModelRecord
from onestep.platform.registry.reference import ModelVersion
from onestep.platform.registry.run import Run, RunFacts
from onestep.platform.registry.store import Registry

WEIGHTS = {"net.weight": torch.arange(12.0).reshape(3, 4), "net.bias": torch.ones(3)}


def facts(experiment: str) -> RunFacts:
    return RunFacts(
        experiment=experiment,
        name="a run",
        config={"method": {"_target_": "onestep.methods.mean_flow.MeanFlow"}, "seed": 7},
        overrides=("method=mean_flow", "seed=7"),
        seed=7,
        data_digest="d" * 64,
    )


def record(
    name: str,
    *,
    parents: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    sweep: str = "",
) -> ModelRecord:
    return ModelRecord(
        name=name,
        method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
        net={"_target_": "onestep.methods.nets.mlp.MLP", "width": 8},
        shape=(2,),
        domain={"kind": "triangle", "t_lo": 0.0, "t_hi": 1.0, "steps": 0},
        data_digest="d" * 64,
        seed=7,
        parents=parents or {},
        overrides=("method=mean_flow",),
        metrics=metrics or {},
        sweep=sweep,
    )


class StoreContract:
    """Inherit, and give a fixture `registry`; `model` names a registered model not yet in it."""

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest) -> str:
        return request.node.name.split("[")[0][:90]

    @pytest.fixture
    def add(self, registry: Registry, model: str) -> Callable[..., ModelVersion]:
        run = Run.start(registry.connection, facts(model))

        def add(**parts: object) -> ModelVersion:
            return registry.register(record(model, **parts), WEIGHTS, run_id=run.run_id)

        return add

    def test_a_loaded_model_is_what_was_registered(self, registry, model, add):
        version = add(metrics={"eval/w2": 0.25})
        assert version == ModelVersion(name=model, version=1)
        loaded = registry.load(str(version))
        assert loaded.reference == version
        assert loaded.record == record(model, metrics={"eval/w2": 0.25})
        assert loaded.weights.keys() == WEIGHTS.keys()
        assert all(torch.equal(loaded.weights[name], WEIGHTS[name]) for name in WEIGHTS)

    def test_versions_count_up_and_are_all_listed(self, registry, model, add):
        versions = [add(), add(metrics={"eval/w2": 1.0})]
        listed = [one.reference for one in registry.list() if one.reference.name == model]
        assert listed == versions == [ModelVersion(name=model, version=n) for n in (1, 2)]

    def test_an_alias_moves_and_its_history_only_grows(self, registry, model, add):
        first, second = add(), add(metrics={"eval/w2": 1.0})
        registry.promote(first, "champion", why="the first", who="ada")
        before = registry.history(model, "champion")
        registry.promote(second, "champion", why="better", who="emmy")
        history = registry.history(model, "champion")
        assert registry.resolve(f"{model}@champion") == second
        assert registry.entry(second).aliases == ("champion",)
        assert registry.entry(first).aliases == ()
        assert history[:1] == before
        assert [(one.source, one.to, one.who, one.why) for one in history] == [
            ("", str(first), "ada", "the first"),
            (str(first), str(second), "emmy", "better"),
        ]

    def test_promoting_what_the_alias_means_already_writes_nothing(self, registry, model, add):
        version = add()
        entry = registry.promote(version, "champion", why="the first")
        assert registry.promote(version, "champion", why="again") == entry
        assert registry.history(model, "champion") == (entry,)

    def test_a_gate_keeps_the_alias_where_it_is(self, registry, model, add):
        good, bad = add(metrics={"eval/w2": 0.5}), add(metrics={"eval/w2": 2.0})
        gate = Gate(metric="eval/w2", at_most=1.0)
        registry.promote(good, "champion", why="good", gate=gate)
        with pytest.raises(PromotionRefused, match=r"eval/w2 = 2, the gate is eval/w2 <= 1"):
            registry.promote(bad, "champion", why="bad", gate=gate)
        assert registry.resolve(f"{model}@champion") == good
        assert [one.gate for one in registry.history(model, "champion")] == ["eval/w2 <= 1"]

    def test_promoters_at_the_same_moment_agree_and_lose_no_entry(self, registry, model, add):
        versions = [add(metrics={"eval/w2": float(n)}) for n in range(4)]

        def promote(version: ModelVersion) -> str:
            try:
                return registry.promote(version, "champion", why=f"for {version}").to
            except PromotionRefused:
                return ""

        with ThreadPoolExecutor(4) as pool:
            winners = set(pool.map(promote, versions)) - {""}
        history = registry.history(model, "champion")
        assert sorted(one.to for one in history) == sorted(map(str, versions))
        assert str(registry.resolve(f"{model}@champion")) == history[-1].to
        assert history[-1].to in winners

    def test_a_rewritten_history_is_found_out(self, registry, model, add):
        first, second = add(), add(metrics={"eval/w2": 1.0})
        entry = registry.promote(first, "champion", why="the first")
        registry.promote(second, "champion", why="better")
        client = registry.connection.client
        client.set_registered_model_tag(model, entry.key, entry.to_json().replace("the", "a"))
        with pytest.raises(ModelAltered, match="was altered at"):
            registry.history(model, "champion")
        client.delete_registered_model_tag(model, entry.key)
        with pytest.raises(ModelAltered, match="lost the entry"):
            registry.history(model, "champion")

    def test_lineage_goes_back_to_the_beginning(self, registry, model, add):
        teacher = add(metrics={"eval/1nn_accuracy/nfe_1": 0.92})
        student = add(
            parents={"teacher": str(teacher), "pairs": "sha256:12ab"},
            metrics={"eval/1nn_accuracy/nfe_1": 0.64},
            sweep="first, trial 3",
        )
        registry.promote(student, "champion", why="best")
        grandchild = add(parents={"init": str(student)})
        assert registry.lineage(grandchild).render().splitlines() == [
            f"{model}/3 MeanFlow",
            f"+-- init: {model}/2 MeanFlow (best of sweep first, trial 3) [champion] "
            "(eval/1nn_accuracy/nfe_1 0.64)",
            f"    +-- teacher: {model}/1 MeanFlow (eval/1nn_accuracy/nfe_1 0.92)",
            "    +-- pairs: sha256:12ab",
        ]

    def test_a_model_whose_parent_is_not_registered_is_refused(self, registry, model, add):
        with pytest.raises(ReferenceNotFound, match="no registered model 'nobody'"):
            add(parents={"teacher": "nobody/1"})
        assert model not in {one.reference.name for one in registry.list()}

    def test_references_that_mean_nothing_are_refused(self, registry, model, add):
        add()
        with pytest.raises(ReferenceNotFound, match=rf"there is no model {model}/2"):
            registry.load(f"{model}/2")
        none = rf"no model has the alias '{model}@winner'; there are no aliases; .* {model}, with"
        with pytest.raises(ReferenceNotFound, match=none):
            registry.load(f"{model}@winner")
        with pytest.raises(ReferenceNotFound, match="no registered model 'nobody'; registered are"):
            registry.load("nobody/1")

    def test_a_bare_alias_of_several_models_is_refused(self, registry, model, add):
        run = Run.start(registry.connection, facts(model))
        alias = model.lower()[:50]
        for version in (
            add(),
            registry.register(record(f"{model}.b"), WEIGHTS, run_id=run.run_id),
        ):
            assert registry.promote(version, alias, why="a test").to == str(version)
            if version.name == model:
                assert registry.resolve(alias) == version
        with pytest.raises(ReferenceNotFound, match=f"say {model}@{alias} or {model}.b@{alias}"):
            registry.resolve(alias)

    def test_a_later_evaluation_is_added_and_the_record_stays(self, registry, model, add):
        version = add(metrics={"eval/w2": 0.5, "eval/mmd": 0.1})
        later = {"eval/w2": 0.4, "eval/fid": 7.0}
        registry.add_evaluation(version, later, provenance={"samples": 1000})
        entry = registry.entry(version)
        assert entry.metrics == {"eval/w2": 0.5, "eval/mmd": 0.1, "eval/fid": 7.0}
        assert entry.record.metrics == {"eval/w2": 0.5, "eval/mmd": 0.1}
        assert [one.provenance for one in entry.evaluations] == [{"samples": 1000}]

    def test_a_run_keeps_its_facts_metrics_and_figures(self, registry, model, tmp_path):
        asked = facts(model)
        figure = plt.figure()
        with Run.start(registry.connection, asked) as run:
            run.log_metrics({"loss/total": 2.0}, step=1)
            run.log_metrics({"loss/total": 1.0}, step=2)
            run.log_figure(figure, "figures/empty.png")
        plt.close(figure)
        client = registry.connection.client
        kept = client.get_run(run.run_id)
        assert kept.info.status == "FINISHED"
        assert kept.data.params["method._target_"] == "onestep.methods.mean_flow.MeanFlow"
        assert kept.data.tags.items() >= asked.tags.items()
        curve = client.get_metric_history(run.run_id, "loss/total")
        assert [(point.step, point.value) for point in curve] == [(1, 2.0), (2, 1.0)]
        path = client.download_artifacts(run.run_id, "figures/empty.png", str(tmp_path))
        with open(path, "rb") as stream:
            assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
        assert {one.path for one in client.list_artifacts(run.run_id)} >= {"config.json"}

    def test_neither_a_run_nor_a_model_keeps_a_password(self, registry, model, tmp_path):
        uri = "postgresql+psycopg://ada:secret@host/db"
        override = f"storage.tracking_uri={uri}"
        config = {"storage": {"tracking_uri": uri}}
        asked = replace(facts(model), config=config, overrides=(override,))
        with Run.start(registry.connection, asked) as run:
            pass
        client = registry.connection.client
        kept = client.get_run(run.run_id).data
        assert kept.params["storage.tracking_uri"] == "postgresql+psycopg://ada:***@host/db"
        path = client.download_artifacts(run.run_id, "config.json", str(tmp_path))
        assert "secret" not in str(kept.tags) + Path(path).read_text()
        made = replace(record(model), experiment=config, overrides=(override,))
        reference = registry.register(made, WEIGHTS, run_id=run.run_id)
        assert registry.load(str(reference)).record.overrides == (
            override.replace("secret", "***"),
        )

    def test_what_a_run_registered_is_found_by_the_run(self, registry, model, add):
        run = Run.start(registry.connection, facts(model))
        assert registry.made_by(run.run_id) is None
        add()
        mine = registry.register(record(model), WEIGHTS, run_id=run.run_id)
        assert mine.version == 2
        assert registry.made_by(run.run_id) == mine

    def test_a_run_that_fails_says_so(self, registry, model):
        with pytest.raises(ZeroDivisionError), Run.start(registry.connection, facts(model)) as run:
            raise ZeroDivisionError
        assert registry.connection.client.get_run(run.run_id).info.status == "FAILED"
