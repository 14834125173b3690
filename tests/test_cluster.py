import copy
import warnings
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from onestep.serving.settings import AppSettings

_ROOT: Final = Path(__file__).parents[1]
_LAUNCHED: Final = ("cluster.yaml", "cluster/on-prem.yaml")
# Ray's schema takes any key of a provider, so that a misspelt one would have no effect.
_PROVIDER: Final = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"},
    "local": {"type", "head_ip", "worker_ips"},
}
_RUN_INSTANCES: Final = {"InstanceType", "ImageId", "BlockDeviceMappings", "InstanceMarketOptions"}


def read(file: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((_ROOT / file).read_text())
    return config


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def resources() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((_ROOT / "cluster/kuberay.yaml").read_text()))


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    spec = resource["spec"].get("rayClusterConfig", resource["spec"])
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("file", _LAUNCHED)
def test_ray_accepts_the_cluster_file(file: str) -> None:
    assert prepare(read(file))["cluster_name"] == "onestep"


@pytest.mark.parametrize("file", _LAUNCHED)
def test_a_misspelt_key_of_the_cluster_file_is_refused(file: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        prepare({**read(file), "max_worker": 3})


@pytest.mark.parametrize("file", _LAUNCHED)
def test_the_provider_has_keys_that_ray_reads(file: str) -> None:
    provider = read(file)["provider"]
    assert set(provider) <= _PROVIDER[provider["type"]]


@pytest.mark.parametrize("file", _LAUNCHED)
def test_every_start_of_ray_asks_for_a_token(file: str) -> None:
    config = read(file)
    for kind in ("head", "worker"):
        starts = [line for line in config[f"{kind}_start_ray_commands"] if "ray start" in line]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0].partition("ray start")[0]
    assert any(place.endswith(".ray/auth_token") for place in config["file_mounts"])


def test_the_comment_on_shared_storage_is_a_configuration_that_ray_accepts() -> None:
    """Uncommented as it says: mounts on the machines, and the home on them in the containers."""
    lines = (_ROOT / "cluster.yaml").read_text().splitlines()
    comment = [line.removeprefix("  #").removeprefix(" ") for line in lines if line[:3] == "  #"]
    options = next(line for line in comment if line.strip().startswith("-v ")).split(" -e ")
    start = next(k for k, line in enumerate(comment) if "initialization_commands:" in line)
    commands = yaml.safe_load("\n".join(comment[start:]))
    config = read("cluster.yaml") | commands
    config["docker"]["run_options"] += [options[0].strip(), *(f"-e {one}" for one in options[1:])]
    prepared = prepare(config)
    assert len(prepared["initialization_commands"]) == 3
    place = options[0].split(":")[-1]
    assert f"-e ONESTEP_HOME={place}" in prepared["docker"]["run_options"]
    assert all(place in line for line in commands["initialization_commands"])


def test_the_page_trains_on_several_nodes_where_it_has_told_of_their_storage() -> None:
    """As shipped, the head has no CPU for a worker, and no node sees the folder of another."""
    assert not any("ONESTEP_HOME" in one for one in read("cluster.yaml")["docker"]["run_options"])
    before, line, after = (_ROOT / "README.md").read_text().partition(" workers.num_workers=4 ")
    assert line
    assert "EFS" in before
    # And its machines may be taken away.
    assert "training.checkpoint_every=" in after.partition("\n")[0]


def test_own_machines_share_a_home() -> None:
    config = read("cluster/on-prem.yaml")
    for kind in ("head", "worker"):
        start = config[f"{kind}_start_ray_commands"][-1]
        assert " ONESTEP_HOME=/mnt/onestep " in start.partition("ray start")[0]


def test_the_pods_of_a_cluster_share_a_home() -> None:
    cluster, _ = resources()
    for group in groups(cluster):
        spec = group["template"]["spec"]
        (container,), (volume,) = spec["containers"], spec["volumes"]
        home = {one["name"]: one["value"] for one in container["env"]}["ONESTEP_HOME"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": home}]
        assert volume["persistentVolumeClaim"] == {"claimName": "onestep-home"}


@pytest.mark.parametrize("file", _LAUNCHED)
def test_every_node_installs_the_checkout_that_it_was_sent(file: str) -> None:
    config = read(file)
    (place,) = (remote for remote, local in config["file_mounts"].items() if local == ".")
    line = f"pip install -c {place}/constraints.txt {place}"
    assert any(command.endswith(line) for command in config["setup_commands"])


def test_the_cloud_cluster_has_a_cpu_head_and_gpu_workers_that_scale_to_zero() -> None:
    prepared = prepare(read("cluster.yaml"))
    types = prepared["available_node_types"]
    head, worker = types[prepared["head_node_type"]], types["gpu_worker"]
    assert head["max_workers"] == 0
    assert head["resources"]["CPU"] == 0
    assert head["node_config"]["InstanceType"].startswith("m")
    assert worker["min_workers"] == 0 < worker["max_workers"] <= prepared["max_workers"]
    assert worker["node_config"]["InstanceType"].startswith(("g", "p"))
    for one in types.values():
        assert set(one["node_config"]) <= _RUN_INSTANCES


def test_the_images_have_the_ray_that_the_package_pins() -> None:
    pins = (_ROOT / "pyproject.toml").read_text()
    version = pins.partition("train,tune]==")[2].partition('"')[0]
    docker = read("cluster.yaml")["docker"]
    for image in (docker["head_image"], docker["worker_image"]):
        assert image.startswith(f"rayproject/ray:{version}-py311")
    for resource in resources():
        spec = resource["spec"].get("rayClusterConfig", resource["spec"])
        assert spec["rayVersion"] == version


def test_own_machines_all_become_workers_and_are_stopped_by_ray_down() -> None:
    config = read("cluster/on-prem.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0" in config["head_start_ray_commands"][-1]
    assert any("/usr/local/bin/ray" in line for line in config["setup_commands"])


def test_kubernetes_gets_a_cluster_and_a_service_that_ask_for_a_token() -> None:
    assert [one["kind"] for one in resources()] == ["RayCluster", "RayService"]
    for resource in resources():
        assert resource["apiVersion"] == "ray.io/v1"
        spec = resource["spec"].get("rayClusterConfig", resource["spec"])
        assert spec["authOptions"] == {"mode": "token"}
        for group in groups(resource):
            (container,) = group["template"]["spec"]["containers"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
            # KubeRay's parameters are texts; a bare number is refused by the operator.
            assert all(isinstance(text, str) for text in group["rayStartParams"].values())
        for group in groups(resource)[1:]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_service_on_kubernetes_is_a_serve_application_of_ours() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own classes use parts of pydantic that are old
        from ray.serve.schema import ServeDeploySchema
    config = ServeDeploySchema(**yaml.safe_load(resources()[1]["spec"]["serveConfigV2"]))
    (application,) = config.applications
    settings = AppSettings(**application.args)
    generator = next(one for one in application.deployments if one.name == "Generator")
    assert generator.num_replicas == settings.replicas
    assert {one.name for one in application.deployments} == {"Generator", "Ingress"}
