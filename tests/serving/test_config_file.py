import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

import onestep
from onestep.platform.cli import main
from onestep.serving import app
from onestep.serving.config_file import config_of
from onestep.serving.settings import AppSettings, ServeSettings

KUBERAY: Final = Path(onestep.__path__[0]) / "cluster" / "kuberay.yaml"


def service_of_kuberay() -> str:
    documents = yaml.safe_load_all(KUBERAY.read_text())
    (service,) = [each for each in documents if each["kind"] == "RayService"]
    return str(service["spec"]["serveConfigV2"])


def shipped(name: str) -> str:
    return files("onestep.serving.conf").joinpath(f"deploy/{name}.yaml").read_text()


FILES: Final = {
    "one box": shipped("one_box"),
    "cluster": shipped("cluster"),
    "kuberay": service_of_kuberay(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_what_its_own_command_prints(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = FILES[name].splitlines()[0].removeprefix("# Made by: onestep ")
    assert main(shlex.split(line)) == 0
    assert capsys.readouterr().out.strip() == FILES[name].strip()


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_what_serve_takes_and_names_our_application(name: str) -> None:
    document = yaml.safe_load(FILES[name])
    schema = ServeDeploySchema.model_validate(document)
    (application,) = schema.applications
    module, _, builder = application.import_path.partition(":")
    assert (module, builder) == (app.__name__, app.build.__name__)
    AppSettings.from_dict(application.args)


def test_a_file_holds_what_differs_from_the_defaults_and_the_references() -> None:
    settings = ServeSettings(app=AppSettings(models=("a@b", "c/1"), bucket=8, threads=2))
    (application,) = config_of(settings)["applications"]
    assert application["args"] == {"models": ["a@b", "c/1"], "bucket": 8, "threads": 2}
    again = AppSettings.from_dict(application["args"])
    assert again == settings.app


def test_a_file_names_the_collector_of_traces() -> None:
    traces = {"traces": "http://collector:4318/v1/traces", "trace_share": 0.1}
    (application,) = config_of(ServeSettings.from_dict(traces))["applications"]
    assert application["args"] == {"model": "champion", **traces}


def test_a_file_needs_a_port() -> None:
    with pytest.raises(ValueError, match="must be a number in a Serve config file, got 0"):
        config_of(ServeSettings(port=0))


def autoscaling(settings: AppSettings) -> Any:
    application = app.build_application(settings, {"models": {"a/1": "a/1"}})
    generator = application._bound_deployment.init_args[0]._bound_deployment
    return generator._deployment_config.autoscaling_config, generator.num_replicas


def test_replicas_come_and_go_between_the_fewest_and_the_most() -> None:
    config, _ = autoscaling(AppSettings(replicas=2, max_replicas=5, bucket=32))
    assert (config.min_replicas, config.max_replicas) == (2, 5)
    assert config.target_ongoing_requests == 32
    assert autoscaling(AppSettings(replicas=2)) == (None, 2)
