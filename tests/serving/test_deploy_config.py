from importlib.resources import files
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from onestep.serving import app
from onestep.serving.settings import AppSettings


@pytest.fixture
def document() -> dict[str, Any]:
    text = files("onestep.serving.conf").joinpath("deploy/champion.yaml").read_text()
    values = yaml.safe_load(text)
    assert isinstance(values, dict)
    return values


def test_the_serve_config_file_is_what_serve_takes(document: dict[str, Any]) -> None:
    assert ServeDeploySchema.model_validate(document).applications[0].route_prefix == "/"


def test_the_serve_config_file_names_our_application_and_its_deployments(
    document: dict[str, Any],
) -> None:
    (application,) = document["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == (app.__name__, app.build.__name__)
    AppSettings.from_dict(application["args"])
    names = [deployment["name"] for deployment in application["deployments"]]
    assert names == [app.GENERATOR.name, app.INGRESS.name]
    (generator, _) = application["deployments"]
    assert generator["num_replicas"] == application["args"]["replicas"]
    assert "user_config" not in generator, "it would go before the version that is looked up"
