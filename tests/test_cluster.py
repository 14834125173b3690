import copy
import shlex
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from onestep.serving.app import build_application
from onestep.serving.keys import ENVIRONMENT
from onestep.serving.settings import AppSettings
from onestep.sweeps.settings import settings_of

_ROOT: Final = Path(__file__).parents[1]
_LAUNCHED: Final = ("cluster.yaml", "cluster/on-prem.yaml")
# Ray's schema takes any key of a provider, so that a misspelt one would have no effect.
_PROVIDER: Final = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"},
    "local": {"type", "head_ip", "worker_ips"},
}
# Fields of KubeRay's own, by kind; it would take one that it does not know for none.
_KUBERAY: Final = {
    "RayCluster": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "RayJob": {"clusterSelector", "entrypoint", "runtimeEnvYAML"},
    "RayService": {"serveConfigV2", "rayClusterConfig"},
    "head": {"rayStartParams", "template"},
    "worker": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
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


def cluster_specs() -> list[dict[str, Any]]:
    """What the cluster is, and what the service runs on; the job has no cluster of its own."""
    cluster, _, service = (one["spec"] for one in resources())
    return [cluster, service["rayClusterConfig"]]


def _drained_s(settings: AppSettings) -> float:
    """Seconds that a replica of the service may take to answer those who wait."""
    ingress = build_application(settings, {"models": {"a/1": "a/1"}})._bound_deployment
    return float(ingress._deployment_config.graceful_shutdown_timeout_s)


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
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
def test_every_node_gets_the_token(file: str) -> None:
    mounts = read(file)["file_mounts"]
    (place,) = (remote for remote, local in mounts.items() if local == "~/.ray/auth_token")
    assert place in ("~/.ray/auth_token", "/home/ray/.ray/auth_token")


def test_every_start_of_ray_in_the_cloud_asks_for_a_token() -> None:
    config = read("cluster.yaml")
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    for kind in ("head", "worker"):
        starts = [line for line in config[f"{kind}_start_ray_commands"] if "ray start" in line]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0].partition("ray start")[0]


def test_all_machines_of_the_cloud_and_their_containers_share_a_home() -> None:
    config = read("cluster.yaml")
    options = [tuple(one.split(" ", 1)) for one in config["docker"]["run_options"]]
    variables = dict(value.split("=", 1) for flag, value in options if flag == "-e")
    (mount,) = (value for flag, value in options if flag == "-v")
    home = variables["ONESTEP_HOME"]
    assert mount == f"{home}:{home}"
    assert variables["ONESTEP_DATA"].startswith(f"{home}/")
    assert len(config["initialization_commands"]) == 3
    assert all(home in line for line in config["initialization_commands"])


def test_the_page_has_checkpoints_where_machines_may_be_taken_away() -> None:
    readme = (_ROOT / "README.md").read_text()
    _, line, after = readme.partition(" workers.num_workers=4 ")
    assert line
    assert "training.checkpoint_every=" in after.partition("\n")[0]
    assert "fs-PUT-YOURS" in read("cluster.yaml")["initialization_commands"][1]
    assert "EFS" in readme.partition(line)[0]


@pytest.mark.parametrize("file", [*_LAUNCHED, "cluster/kuberay.yaml"])
def test_sweeps_of_the_cluster_files_go_on_after_a_machine_was_taken_away(file: str) -> None:
    lines = (_ROOT / file).read_text().replace("\\\n#", "").splitlines()
    (line,) = (one for one in lines if one.startswith("#   onestep submit"))
    words = shlex.split(line, comments=False)
    assert words[-1] == "resume=auto"
    assert any(one.startswith("training.checkpoint_every=") for one in words)


@pytest.mark.parametrize("file", _LAUNCHED)
def test_the_head_keeps_its_services(file: str) -> None:
    config = read(file)
    (place,) = (
        place for place, local in config["file_mounts"].items() if local.endswith("services.sh")
    )
    assert (_ROOT / config["file_mounts"][place]).is_file()
    _, start, services = config["head_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1" in start
    assert services == f"bash {place.replace('/home/ray', '~')} start"
    (install,) = (line for line in config["head_setup_commands"] if "pip install" in line)
    assert {"optuna-dashboard", "mlflow[auth]"} <= set(shlex.split(install))


@pytest.mark.parametrize("file", _LAUNCHED)
def test_every_node_sends_mlflow_the_token_as_a_password(file: str) -> None:
    setup = read(file)["setup_commands"]
    (line,) = (one for one in setup if "MLFLOW_TRACKING_PASSWORD" in one)
    assert "MLFLOW_TRACKING_USERNAME=onestep " in line
    assert "MLFLOW_TRACKING_PASSWORD=$(<~/.ray/auth_token)'" in line
    written = line.rpartition(" ")[2]
    assert any(one.endswith(f"echo '. {written}' >> ~/.bashrc") for one in setup)


def test_mlflow_listens_on_the_heads_address_in_the_network_of_the_cluster() -> None:
    setup = read("cluster.yaml")["head_setup_commands"]
    (line,) = (one for one in setup if "MLFLOW_TRACKING_URI" in one)
    assert "MLFLOW_TRACKING_URI=http://'$(hostname -I | cut -d' ' -f1)':5000'" in line
    own = read("cluster/on-prem.yaml")
    (line,) = (one for one in own["setup_commands"] if "MLFLOW_TRACKING_URI" in one)
    assert f" MLFLOW_TRACKING_URI=http://{own['provider']['head_ip']}:5000 " in line


def test_the_shells_of_own_machines_find_the_package_the_token_and_the_shared_home() -> None:
    """Those of `ray down` and of jobs too: nothing stands in the commands that start Ray alone."""
    setup = read("cluster/on-prem.yaml")["setup_commands"]
    (line,) = (one for one in setup if one.startswith("echo 'export "))
    variables = dict(one.split("=", 1) for one in line.partition("'")[2].split("'")[0].split()[1:])
    assert variables == {
        "PATH": "~/onestep-env/bin:$PATH",
        "RAY_AUTH_MODE": "token",
        "ONESTEP_HOME": "/mnt/onestep",
        "ONESTEP_DATA": "/mnt/onestep/data",
        "GLOO_SOCKET_IFNAME": "eth0",
        "MLFLOW_TRACKING_URI": "http://192.0.2.11:5000",
        "MLFLOW_TRACKING_USERNAME": "onestep",
        "MLFLOW_TRACKING_PASSWORD": "$(<~/.ray/auth_token)",
    }
    file = line.rpartition(" ")[2]
    assert any(one.endswith(f"echo '. {file}' >> ~/.bashrc") for one in setup)


def test_the_pods_of_a_cluster_share_a_home() -> None:
    for group in groups(cluster_specs()[0]):
        spec = group["template"]["spec"]
        (container,), (volume,) = spec["containers"], spec["volumes"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        home = variables["ONESTEP_HOME"]
        assert variables["ONESTEP_DATA"].startswith(f"{home}/")
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": home}]
        assert volume["persistentVolumeClaim"] == {"claimName": "onestep-home"}


@pytest.mark.parametrize("file", _LAUNCHED)
def test_every_node_installs_the_wheel_with_its_pins_and_again_if_only_code_has_changed(
    file: str,
) -> None:
    config = read(file)
    at = {local: place.replace("/home/ray", "~") for place, local in config["file_mounts"].items()}
    first, again = (line for line in config["setup_commands"] if "pip install" in line)
    assert first.endswith(f"pip install -c {at['constraints.txt']} {at['dist']}/*.whl")
    assert again.endswith(f"pip install --no-deps --force-reinstall {at['dist']}/*.whl")


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
    assert [spec["rayVersion"] for spec in cluster_specs()] == [version, version]


def test_own_machines_all_become_workers() -> None:
    config = read("cluster/on-prem.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    (start,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    assert start.startswith("RAY_enable_autoscaler_v2=0 ")


def test_kubernetes_gets_a_cluster_a_sweep_and_a_service_that_can_be_applied_one_by_one() -> None:
    kinds = {one["metadata"]["labels"]["onestep"]: one["kind"] for one in resources()}
    assert kinds == {"cluster": "RayCluster", "sweep": "RayJob", "service": "RayService"}
    header = (_ROOT / "cluster/kuberay.yaml").read_text().partition("apiVersion")[0]
    for label in kinds:
        assert f"kubectl apply -f cluster/kuberay.yaml -l onestep={label}" in header
    for resource in resources():
        assert resource["apiVersion"] == "ray.io/v1"
        assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(resource["spec"]) <= _KUBERAY[resource["kind"]]


def test_clusters_on_kubernetes_ask_for_a_token() -> None:
    for spec in cluster_specs():
        assert set(spec) <= _KUBERAY["RayCluster"]
        assert spec["authOptions"] == {"mode": "token"}
        for group in groups(spec):
            (container,) = group["template"]["spec"]["containers"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
            # KubeRay's parameters are texts; a bare number is refused by the operator.
            assert all(isinstance(text, str) for text in group["rayStartParams"].values())
        assert set(spec["headGroupSpec"]) <= _KUBERAY["head"]
        for group in groups(spec)[1:]:
            assert set(group) <= _KUBERAY["worker"]
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_all_of_kubernetes_runs_one_image() -> None:
    pods = [group["template"]["spec"] for spec in cluster_specs() for group in groups(spec)]
    assert len({one["image"] for pod in pods for one in pod["containers"]}) == 1


def test_pods_run_as_the_account_of_rays_images_and_without_privileges() -> None:
    for group in (group for spec in cluster_specs() for group in groups(spec)):
        pod = group["template"]["spec"]
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "fsGroup": 100,
        }
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_job_on_kubernetes_is_a_sweep_on_the_cluster_there() -> None:
    cluster, job, _ = resources()
    # The operator labels what belongs to a cluster by its name.
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    program, command, *overrides = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("onestep", "sweep")
    assert overrides.pop() == "resume=auto"
    assert any(one.startswith("training.checkpoint_every=") for one in overrides)
    settings = settings_of(tuple(overrides))
    assert settings.concurrency == groups(cluster["spec"])[1]["maxReplicas"]


def test_the_nodes_of_the_service_on_kubernetes_hold_its_most_replicas() -> None:
    service = resources()[2]["spec"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    settings = AppSettings.from_dict(application["args"])
    (workers,) = service["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    # Without an autoscaler there are as many nodes as at the start, whatever their most is.
    scales = service["rayClusterConfig"].get("enableInTreeAutoscaling", False)
    nodes = workers["maxReplicas" if scales else "replicas"]
    cpus = int(container["resources"]["limits"]["cpu"])
    assert settings.max_replicas is not None
    wanted = settings.max_replicas * settings.threads
    assert (nodes - 1) * cpus < wanted <= nodes * cpus
    assert settings.replicas * settings.threads <= workers["minReplicas"] * cpus


def test_the_service_on_kubernetes_is_the_one_of_production() -> None:
    service = resources()[2]["spec"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    settings = AppSettings.from_dict(application["args"])
    header = (_ROOT / "cluster/kuberay.yaml").read_text().partition("apiVersion")[0]
    fast = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    page = (_ROOT / "docs/serving.md").read_text()
    assert " ".join(f"{name}={value}" for name, value in fast.items()) in page
    drained_s = _drained_s(settings)
    for group in groups(service["rayClusterConfig"]):
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= drained_s + 15
        (container,), (volume,) = pod["containers"], pod["volumes"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        (mount,) = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert variables == fast | {ENVIRONMENT: f"{mount['mountPath']}/keys.yaml"}
        secret = volume["secret"]["secretName"]
        assert f"kubectl create secret generic {secret} --from-file=keys.yaml" in header
