from pathlib import Path

from onestep.platform.home import VARIABLES, Home

HERE = Path("/here")


def test_the_home_lies_in_the_working_folder_unless_told_otherwise():
    home = Home.resolve({}, folder=HERE)
    assert home.root == HERE / ".onestep"
    assert home.tracking_uri == "sqlite:////here/.onestep/mlflow.db"
    assert home.artifacts == "/here/.onestep/artifacts"
    assert home.wandb == HERE / ".onestep" / "wandb"


def test_the_environment_moves_the_home():
    home = Home.resolve({"ONESTEP_HOME": "/there"}, folder=HERE)
    assert home.tracking_uri == "sqlite:////there/mlflow.db"


def test_a_configured_store_goes_before_that_of_the_environment():
    environment = {"MLFLOW_TRACKING_URI": "http://a:5000", "ONESTEP_ARTIFACTS": "s3://bucket"}
    home = Home.resolve(environment, folder=HERE)
    assert (home.tracking_uri, home.artifacts) == ("http://a:5000", "s3://bucket")
    home = Home.resolve(environment, folder=HERE, tracking_uri="http://b:5000")
    assert home.tracking_uri == "http://b:5000"


def test_a_process_elsewhere_is_told_home_stores_data_and_trust():
    environment = {"ONESTEP_DATA": "/data", "ONESTEP_TRUST": "ours", "HOME": "/root"}
    home = Home.resolve(environment, folder=HERE, tracking_uri="http://b:5000")
    there = Home.resolve(home.variables(environment), folder=Path("/there"))
    assert there == home
    assert set(home.variables(environment)) == set(VARIABLES)
    assert home.variables(environment)["ONESTEP_DATA"] == "/data"
    assert "ONESTEP_TRUST" not in home.variables({})


def test_relative_stores_are_those_of_the_folder_that_names_them():
    environment = {"ONESTEP_ARTIFACTS": "kept", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    home = Home.resolve(environment, folder=HERE)
    assert (home.tracking_uri, home.artifacts) == ("sqlite:////here/mlflow.db", "/here/kept")
    assert Home.resolve(home.variables(environment), folder=Path("/there")) == home
    own = {"file:/there/m.db?uri=true": "/there", "file:m.db?uri=true": "/here"}
    for name, place in own.items():
        home = Home.resolve({}, folder=HERE, tracking_uri=f"sqlite:///{name}")
        assert home.tracking_uri == f"sqlite:///file:{place}/m.db?uri=true"
