import asyncio
import base64
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Final

import httpx
import pytest
import ray
import torch
from ray import serve
from ray.serve.schema import ApplicationStatus

from onestep.methods.core.noise import draw_noise
from onestep.platform.ray_instance import ray_instance
from onestep.platform.registry.errors import ReferenceNotFound
from onestep.platform.registry.store import Registry
from onestep.serving.app import GENERATOR, build, build_application
from onestep.serving.generator import Generator
from onestep.serving.host import APP_NAME, Hosted, check_keys
from onestep.serving.image import encode_png, to_uint8
from onestep.serving.keys import add_key
from onestep.serving.loading import load_engine, locate
from onestep.serving.settings import AppSettings, ServeSettings
from onestep.tests.serving.model import MEAN, SHAPE, STD
from onestep.tests.serving.registry import NETWORK, ORACLE, fill_registry

_REFERENCE: Final = {"prompt": "1", "seed": 3}


def settings(uri: str, **values: object) -> ServeSettings:
    return ServeSettings.from_dict(
        {"tracking_uri": uri, "port": 0, "bucket": 4, "strict": True, **values}
    )


def _generate(url: str, **body: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/generations", json=body, timeout=60.0)


def images_of(url: str, **body: object) -> list[bytes]:
    answer = _generate(url, **body)
    answer.raise_for_status()
    return [base64.b64decode(image["b64_json"]) for image in answer.json()["data"]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fill_registry(tmp_path_factory.mktemp("registry"))


@pytest.mark.parametrize(
    ("reference", "error"), [("best", ReferenceNotFound), ("digits/9", ReferenceNotFound)]
)
def test_a_missing_model_is_refused_before_ray_starts(
    store: str, reference: str, error: type[ValueError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", _never)
    with pytest.raises(error), Hosted(settings(store, model=reference)):
        pass


def test_a_busy_port_is_refused_before_ray_starts(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", _never)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ValueError, match=f"serve.port must be free on 127.0.0.1, got {port}"),
            Hosted(settings(store, port=port)),
        ):
            pass


def test_more_threads_than_cores_are_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _never)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ValueError, match=r"at most the \d+ cores .*, got 1000 x 2"),
        Hosted(settings(store, replicas=1000, threads=2)),
    ):
        pass


def test_more_gpus_than_there_are_are_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _never)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ValueError, match=r"at most the 0 GPUs of this machine, got 1 x 0.5"),
        Hosted(settings(store, gpus=0.5)),
    ):
        pass


def test_a_file_of_keys_that_cannot_be_read_is_refused_before_ray_starts(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", _never)
    monkeypatch.setenv("ONESTEP_KEYS", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none cannot be read: No such"), Hosted(settings(store)):
        pass


def test_a_log_that_cannot_be_written_is_refused_before_ray_starts(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", _never)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ValueError, match=r"^serve.access_file must be a file that can be written"),
        Hosted(settings(store, access_file=str(tmp_path))),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "keyed", "warned"),
    [
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("images.example", False, True),
        ("0.0.0.0", True, False),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("localhost", False, False),
    ],
)
def test_an_address_without_keys_that_others_reach_is_warned_of(
    host: str, keyed: bool, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.yaml"
    add_key(path, "ada")
    check_keys(ServeSettings.from_dict({"host": host, "keys": str(path) if keyed else None}))
    found = [record.getMessage() for record in caplog.records]
    assert bool(found) == warned
    assert all(host in message and "asks for no key" in message for message in found)


def _never(*args: object, **kwargs: object) -> None:
    raise AssertionError("Ray was started")


def test_the_engine_of_an_alias_is_that_of_its_version(store: str) -> None:
    engine, version = load_engine(AppSettings(tracking_uri=store, model="champion"))
    assert version == NETWORK
    assert engine.record == Registry(store).entry(NETWORK).record


def test_the_application_of_a_config_file_has_a_generator_and_an_ingress_without_a_core() -> None:
    uri = "postgresql://ada:secret@host/db"
    application = build({"model": "digits/3", "replicas": 2, "tracking_uri": uri})
    ingress = application._bound_deployment
    assert "secret" not in str(ingress.version)
    (generator,) = (part._bound_deployment for part in ingress.init_args)
    assert generator.name == GENERATOR.name
    assert generator.num_replicas == 2
    assert (generator.ray_actor_options or {})["num_gpus"] == 0
    assert generator.user_config == ingress.user_config == {"models": {"digits/3": "digits/3"}}
    assert (ingress.ray_actor_options or {})["num_cpus"] == 0


def test_a_replica_has_its_share_of_a_gpu() -> None:
    ingress = build({"model": "digits/3", "gpus": 0.5})._bound_deployment
    (generator,) = (part._bound_deployment for part in ingress.init_args)
    assert (generator.ray_actor_options or {})["num_gpus"] == 0.5


def test_aliases_are_watched_by_one_process_without_a_core_or_by_none() -> None:
    ingress = build({"model": "digits/3", "replicas": 2})._bound_deployment
    watcher = ingress.init_kwargs["watch"]._bound_deployment
    assert watcher.num_replicas == 1
    assert (watcher.ray_actor_options or {})["num_cpus"] == 0
    assert watcher.user_config == {"names": ["digits/3"]}
    still = build({"model": "digits/3", "watch_s": None})._bound_deployment
    assert "watch" not in still.init_kwargs


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("models", [["digits/3"], ["digits/3", "faces/2", "digits/4"]])
@pytest.mark.parametrize(("bucket", "max_waiting"), [(16, 256), (32, 1024), (1024, 1)])
def test_the_queues_of_serve_leave_the_refusal_to_the_batchers(
    replicas: int, models: list[str], bucket: int, max_waiting: int
) -> None:
    sizes = {"replicas": replicas, "bucket": bucket, "max_waiting": max_waiting}
    ingress = build({"models": models, **sizes})._bound_deployment
    (generator,) = (part._bound_deployment for part in ingress.init_args)
    # A batch has at most as many requests as rows; one model more is on trial.
    taken = (len(models) + 1) * (max_waiting + bucket)
    assert generator.max_ongoing_requests >= taken + 100
    assert generator.max_queued_requests > replicas * taken
    most = replicas * generator.max_ongoing_requests + generator.max_queued_requests
    assert ingress.max_ongoing_requests > most


def test_an_alias_of_a_config_file_is_looked_up_once_for_all_replicas(store: str) -> None:
    args = {"model": "champion", "tracking_uri": store}
    ingress = build(args)._bound_deployment
    (generator,) = (part._bound_deployment for part in ingress.init_args)
    assert generator.user_config == {"models": {"champion": NETWORK}}
    with pytest.raises(ReferenceNotFound):
        build({**args, "model": "absent"})
    replica = Generator(args)
    with pytest.raises(ValueError, match=r"user_config\.model must be a version .*'champion'"):
        asyncio.run(replica.reconfigure({"model": "champion"}))


@pytest.mark.slow
@pytest.mark.ray
def test_an_application_of_another_on_the_cluster_is_left_alone(store: str) -> None:
    with ray_instance(num_cpus=2):
        # Without a proxy, because an application is what counts.
        serve.start(proxy_location="Disabled")
        idle = serve.deployment(Idle).options(ray_actor_options={"num_cpus": 0})
        serve.run(idle.bind(), name=APP_NAME, route_prefix=None)
        refusal = "must not serve an application 'onestep' yet, .* got one that is RUNNING"
        with pytest.raises(ValueError, match=refusal), Hosted(settings(store)):
            pass
        assert serve.status().applications[APP_NAME].status == ApplicationStatus.RUNNING
        serve.delete(APP_NAME)
        refusal = "must have an HTTP proxy, got none"
        with pytest.raises(ValueError, match=refusal), Hosted(settings(store)):
            pass
        serve.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_another_port_than_that_of_a_running_serve_is_refused(store: str) -> None:
    with ray_instance(num_cpus=2):
        port, other = free_ports(2)
        serve.start(proxy_location="HeadOnly", http_options={"port": port})
        refusal = f"serve.port 0 or {port}, where .* listens already, got 127.0.0.1 and {other}"
        with pytest.raises(ValueError, match=refusal), Hosted(settings(store, port=other)):
            pass
        serve.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_a_running_serve_is_joined_and_goes_on(store: str) -> None:
    with ray_instance(num_cpus=2):
        (port,) = free_ports(1)
        serve.start(proxy_location="HeadOnly", http_options={"port": port})
        with Hosted(settings(store, port=0)) as hosted:
            assert hosted.url == f"http://127.0.0.1:{port}"
        status = serve.status()
        assert (status.applications, len(status.proxies)) == ({}, 1)
        serve.shutdown()


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Idle:
    """An application that does nothing."""


def redeploy(store: str, version: str) -> None:
    """What `serve deploy` does with another user config: the replicas swap their model."""
    app = locate(settings(store, max_waiting=11).app)
    config = {"model": version, "name": app.model}
    serve.run(build_application(app, config), name=APP_NAME, route_prefix="/")


def _ask_until(stop: Event, url: str) -> list[bytes]:
    images = images_of(url, **_REFERENCE)
    while not stop.is_set():
        images += images_of(url, **_REFERENCE)
    return images


def check_metrics_and_bodies(url: str) -> None:
    assert len(images_of(url, prompt="1", n=3)) == 3
    page = httpx.get(f"{url}/metrics", headers={"X-Request-Id": "mine"}, timeout=30.0)
    assert page.headers.get_list("X-Request-Id") == ["mine"]
    assert len(httpx.get(url).headers.get_list("X-Request-Id")) == 1
    made = r'^onestep_images_total\{model="digits/1",replica="\w+"\} 3\.0$'
    assert re.search(made, page.text, re.MULTILINE)
    assert re.search(r"^onestep_replicas_answered 1\.0$", page.text, re.MULTILINE)
    assert re.search(r'^onestep_http_in_flight\{ingress="(?!local)\w+"\}', page.text, re.MULTILINE)
    large = httpx.post(
        f"{url}/v1/generate", content=(b" " * 10**6 for _ in range(17)), timeout=30.0
    )
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.ray
def test_a_hosted_model_answers_alone_and_in_company_and_is_switched_without_a_refused_request(
    store: str,
) -> None:
    was_running = ray.is_initialized()
    with Hosted(settings(store, max_waiting=11)) as hosted, ThreadPoolExecutor(12) as pool:
        url = hosted.url
        check_metrics_and_bodies(url)
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "model": NETWORK}
        assert httpx.get(url).headers["Content-Type"].startswith("text/html")
        (card,) = httpx.get(f"{url}/v1/models").json()["data"]
        assert (card["id"], card["version"]) == ("champion", NETWORK)

        bodies = [{"prompt": str(k % 4), "n": 1 + k % 3, "seed": k % 5} for k in range(24)]
        crowd = list(pool.map(lambda body: images_of(url, **body), bodies))
        for body, images in list(zip(bodies, crowd, strict=True))[::6]:
            assert images_of(url, **body) == images
        digits = [images_of(url, prompt=label, seed=0)[0] for label in ("0", "1", "two", "three")]
        assert len(set(digits)) == 4

        refused = httpx.post(f"{url}/v1/images/generations", json={"prompt": "12"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "prompt")

        busy = {"prompt": "1", "n": 64}
        with ThreadPoolExecutor(40) as flood:
            asked = [flood.submit(_generate, url, **busy) for _ in range(40)]
            # One that is turned away unheard is not told what is wrong with it.
            heard = [_generate(url, prompt="12").status_code]
            while heard[-1] != 429 and not all(one.done() for one in asked):
                heard.append(_generate(url, prompt="12").status_code)
            answers = [one.result() for one in asked]
        assert set(heard) <= {422, 429}
        assert heard[-1] == 429
        assert {answer.status_code for answer in answers} == {200, 429}
        fault = next(answer for answer in answers if answer.status_code == 429).json()["error"]
        said = re.fullmatch(r"(\d+) requests wait already; try again in a second", fault["message"])
        assert said is not None
        assert int(said[1]) >= 11

        (of_the_network,) = images_of(url, **_REFERENCE)
        stop = Event()
        clients = [pool.submit(_ask_until, stop, url) for _ in range(4)]
        redeploy(store, ORACLE)
        assert httpx.get(f"{url}/healthz").json()["model"] == ORACLE
        stop.set()
        images = {image for client in clients for image in client.result(timeout=30)}
        m_plus_c_x0 = encode_png(to_uint8(MEAN + STD * draw_noise(1, SHAPE, seed=3)[0])[0])
        assert images_of(url, **_REFERENCE) == [m_plus_c_x0]
        assert images <= {of_the_network, m_plus_c_x0}
    assert ray.is_initialized() == was_running
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz")
