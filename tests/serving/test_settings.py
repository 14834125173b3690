import re

import pytest

from onestep.serving.loading import locate
from onestep.serving.settings import AppSettings, ServeSettings


def test_a_flat_mapping_fills_both_parts() -> None:
    settings = ServeSettings.from_dict({"port": 0, "replicas": 2, "model": "digits/3"})
    assert settings == ServeSettings(port=0, app=AppSettings(replicas=2, model="digits/3"))


def test_application_settings_travel_as_plain_values() -> None:
    settings = AppSettings(model="digits/3", tracking_uri="sqlite:////tmp/m.db", bucket=8)
    assert AppSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replicas", 0),
        ("replicas", True),
        ("threads", 1.5),
        ("gpus", 2.0),
        ("gpus", -0.5),
        ("gpus", "all"),
        ("bucket", 0),
        ("max_waiting", "many"),
        ("port", 65536),
        ("port", "http"),
        ("start_timeout_s", 0),
        ("host", ""),
        ("model", None),
        ("tracking_uri", ""),
        ("artifacts", True),
        ("bucket", None),
        ("max_streams", 0),
        ("max_streams", 100_001),
        ("memory_mb", 0),
        ("request_timeout_s", 0.01),
        ("dtype", "float16"),
        ("stuck_s", 0.01),
        ("watch_s", 0.01),
        ("watch_s", "often"),
        ("trace_share", -0.1),
        ("trace_share", 1.5),
        ("traces", ""),
        ("traces", "collector:4318"),
        ("traces", "grpc://collector:4317/v1/traces"),
        ("traces", "http://collector:4318"),
        ("traces", "http://collector:4318/"),
        ("traces", "http://collector:0/v1/traces"),
        ("traces", "http://collector:many/v1/traces"),
        ("traces", "http:///v1/traces"),
        ("traces", "http://[::1/v1/traces"),
        ("traces", "http://collector/v1/ traces"),
        ("traces", "http://collector/v1/traces\n"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_got(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^serve.{key} must be .*, got {re.escape(repr(value))}$"):
        ServeSettings.from_dict({key: value})


@pytest.mark.parametrize("build", [ServeSettings.from_dict, AppSettings.from_dict])
def test_an_unknown_key_is_refused_with_the_known_ones(build: type) -> None:
    with pytest.raises(ValueError, match=r"serve has no setting prot, allowed: .*replicas"):
        build({"prot": 1})


def test_the_settings_of_serve_are_flat() -> None:
    with pytest.raises(ValueError, match=r"serve has no setting app, allowed: model, .*, port"):
        ServeSettings.from_dict({"app": {"replicas": 2}})


def test_a_relative_store_means_the_same_file_in_another_folder(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    located = locate(AppSettings(tracking_uri="sqlite:///runs.db"))
    assert located.tracking_uri == f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.chdir("/")
    assert locate(located) == located


@pytest.mark.parametrize(
    "url",
    ["http://collector:4318/v1/traces", "https://ada:p@[::1]/otlp/v1/traces?tenant=1"],
)
def test_a_collector_of_traces_is_named_by_its_url(url: str) -> None:
    settings = AppSettings(traces=url, trace_share=0.25)
    assert AppSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize("url", ["ftp://ada:hidden@host/v1/traces", "ada:hidden@host:4318/v1"])
def test_the_refusal_of_a_collector_shows_no_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"got '(ftp://)?ada:\*\*\*@host") as caught:
        AppSettings(traces=url)
    assert "hidden" not in str(caught.value)


def test_a_share_of_no_traces_is_refused() -> None:
    said = r"^serve.trace_share must be left out where serve.traces names no collector, got 0.5$"
    with pytest.raises(ValueError, match=said):
        AppSettings(trace_share=0.5)


def test_what_is_compiled_for_a_gpu_keeps_to_one_thread() -> None:
    with pytest.raises(ValueError, match=r"^serve.apart must be true where .*, got False$"):
        AppSettings(gpus=1.0, compile=True)
    assert AppSettings(gpus=0.5, compile=True, apart=True).device == "cuda"
    assert AppSettings(compile=True).device == "cpu"


def test_a_proxy_does_not_cut_off_what_the_service_would_answer() -> None:
    said = "serve.proxy_timeout_s must be above serve.request_timeout_s, .* got 60 and 60"
    with pytest.raises(ValueError, match=said):
        ServeSettings.from_dict({"proxy_timeout_s": 60, "request_timeout_s": 60})
