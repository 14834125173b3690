"""What users meet, frozen: a change here is a change for them and has to be meant."""

import argparse
import dataclasses
import inspect
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest
from fastapi.routing import APIRoute

from onestep import __version__
from onestep.platform.api import Model
from onestep.platform.cli import USER_ERROR, Command, main
from onestep.platform.configuration import compose
from onestep.platform.experiment import ALL_SAMPLES, Experiment
from onestep.serving.api import build_api
from onestep.serving.native import GenerateRequest, Made
from onestep.serving.schema import ImagesRequest, ImagesResponse, ModelList, Refusal

ROOT: Final = Path(__file__).resolve().parent.parent
VERBS: Final = (
    "train",
    "evaluate",
    "sample",
    "sweep",
    "compare",
    "average",
    "registry",
    "canary",
    "serve",
    "key",
    "submit",
    "doctor",
)
CONFIGURATION: Final = {
    "": [
        "changes",
        "data",
        "evaluation",
        "guardian",
        "learning_rate",
        "method",
        "name",
        "net",
        "optimizer",
        "pairs",
        "parents",
        "published",
        "run",
        "seed",
        "storage",
        "training",
        "workers",
    ],
    "training": [
        "accumulate",
        "batch_size",
        "checkpoint_every",
        "clip_norm",
        "compile",
        "ema_half_lives",
        "ema_ramp",
        "ema_served",
        "ema_snapshots",
        "keep_checkpoints",
        "log_every",
        "precision",
        "samples",
        "shards",
        "stream",
        "threads",
    ],
    "guardian": ["every", "lr_factor", "retries"],
    "workers": [
        "address",
        "cpus_per_worker",
        "gpus_per_worker",
        "max_failures",
        "num_workers",
        "ray",
    ],
    "parents": ["initial", "pairs", "teacher", "weak"],
    "pairs": ["batch_size", "count", "guidance", "real", "seed", "steps"],
    "evaluation": ["guidance", "nfes", "samples", "seed"],
    "storage": ["tracking_uri", "wandb"],
}
ROUTES: Final = {
    "GET /",
    "GET /curve.js",
    "GET /docs",
    "GET /docs.js",
    "HEAD /healthz",
    "HEAD /readyz",
    "GET /healthz",
    "GET /metrics",
    "GET /page.css",
    "GET /page.js",
    "GET /readyz",
    "GET /result.js",
    "GET /server.js",
    "GET /v1/images/{name}/{version}/{seed}/{k}.{form}",
    "GET /v1/models",
    "GET /v1/models/{name:path}",
    "POST /v1/generate",
    "POST /v1/images/generations",
}
OPTIONS: Final = {
    "train": ["--dry-run", "--measure"],
    "evaluate": [
        "--decoded",
        "--device",
        "--dry-run",
        "--fid",
        "--guidance",
        "--json",
        "--keep",
        "--nfe",
        "--samples",
        "--seed",
    ],
    "sample": [
        "--caption",
        "--device",
        "--dry-run",
        "--guidance",
        "--label",
        "--n",
        "--nfe",
        "--out",
        "--seed",
    ],
    "sweep": ["--any-code", "--dry-run", "--resume"],
    "compare": ["--device", "--dry-run", "--nfe", "--out", "--samples", "--seed"],
    "average": ["--device", "--dry-run", "--keep", "--nfe", "--samples", "--seed", "--width"],
    "registry": ["--tracking-uri"],
    "canary": ["--tracking-uri"],
    "serve": ["--config-file", "--dry-run"],
    "key": [],
    "submit": [
        "--address",
        "--dry-run",
        "--env",
        "--installed",
        "--no-wait",
        "--python",
        "--wheel",
        "--working-dir",
    ],
    "doctor": ["--dry-run"],
}


class Silent:
    """A service that is never asked."""

    async def describe(self) -> ModelList:
        raise AssertionError

    async def missing(self) -> list[str]:
        raise AssertionError

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        raise AssertionError

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        raise AssertionError


def commands() -> Iterator[Command]:
    for point in entry_points(group="onestep.commands"):
        yield point.load()()


def test_the_verbs_are_these() -> None:
    assert {point.name for point in entry_points(group="onestep.commands")} == set(VERBS)


def test_the_verbs_are_those_of_the_source() -> None:
    """The installed entry points, which the tests above read, are not older than pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in ("onestep.commands", "onestep.conf"):
        installed = {point.name: point.value for point in entry_points(group=group)}
        assert installed == project["entry-points"][group]
    scripts = {
        p.name: p.value
        for p in entry_points(group="console_scripts", module="onestep.platform.cli")
    }
    assert scripts == project["scripts"] == {"onestep": "onestep.platform.cli:main"}


def test_each_verb_loads_and_explains_itself_with_an_example() -> None:
    found = {command.name: command for command in commands()}
    assert set(found) == set(VERBS)
    for name, command in found.items():
        command.configure(argparse.ArgumentParser(prog=f"onestep {name}"))
        assert command.summary, name
        assert f"onestep {name}" in command.description, name


@pytest.mark.parametrize("name", VERBS)
def test_the_options_of_a_verb_are_these(name: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    next(c for c in commands() if c.name == name).configure(parser)
    found = [option for action in parser._actions for option in action.option_strings]
    assert sorted(found) == OPTIONS[name]


@pytest.mark.parametrize("name", ["evaluate", "compare", "average"])
def test_reports_rest_on_as_many_samples_wherever_they_are_made(name: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    next(c for c in commands() if c.name == name).configure(parser)
    asked = inspect.signature(Model.evaluate).parameters["samples"].default
    assert parser.get_default("samples") == asked == ALL_SAMPLES


def test_the_command_without_a_verb_lists_all_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == USER_ERROR == 2
    out = capsys.readouterr().out
    places = [out.index(f"\n    {verb} ") for verb in VERBS]
    assert places == sorted(places)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"onestep {__version__}\n"


@pytest.mark.parametrize("part", sorted(CONFIGURATION))
def test_the_keys_of_a_run_are_these(part: str) -> None:
    composed = compose("train")
    node = composed[part] if part else composed
    assert sorted(node) == CONFIGURATION[part]


def test_every_key_of_a_run_is_a_field_and_every_field_a_key() -> None:
    composed = compose("train")
    experiment = Experiment.from_dict(composed)
    fields = {field.name for field in dataclasses.fields(experiment)}
    assert set(composed) == fields - {"overrides"}
    for part in sorted(set(CONFIGURATION) - {""}):
        record = getattr(experiment, part)
        assert set(composed[part]) == {field.name for field in dataclasses.fields(record)}


@pytest.mark.slow
def test_every_experiment_file_composes() -> None:
    folder = ROOT / "platform" / "conf" / "experiment"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    assert names
    for name in names:
        experiment = Experiment.from_dict(compose("train", [f"experiment={name}"]))
        method = str(experiment.method["_target_"]).split(".")[-2]
        assert name.endswith(method), f"{name} trains {method}"


def test_the_routes_are_these() -> None:
    api = build_api(Silent())
    found = {
        f"{method} {route.path}"
        for route in api.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert found == ROUTES


def test_a_request_for_images_has_the_fields_of_openai_and_four_more() -> None:
    openai = {"model", "prompt", "n", "size", "response_format", "output_format"} | {
        "quality",
        "user",
        "background",
        "moderation",
        "stream",
    }
    assert set(ImagesRequest.model_fields) - openai <= {
        "seed",
        "steps",
        "guidance",
        "deadline_ms",
    }
    assert {"model", "prompt", "n", "size", "response_format", "seed", "steps"} <= set(
        ImagesRequest.model_fields
    )
