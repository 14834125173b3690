"""Traces across Ray Serve: the proxy, an ingress, replicas, and their end."""

from pathlib import Path

import httpx
import pytest

from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.collector import collecting
from onestep.tests.serving.registry import NETWORK, fill_registry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.mark.slow
@pytest.mark.ray
def test_a_hosted_service_sends_its_spans_before_it_ends(tmp_path: Path) -> None:
    own = {"tracking_uri": fill_registry(tmp_path), "port": 0, "bucket": 4, "apart": True}
    with collecting() as collector:
        settings = ServeSettings.from_dict({**own, "traces": collector.url})
        with Hosted(settings) as hosted:
            url = f"{hosted.url}/v1/images/generations"
            for flag, body in (("01", {"prompt": "1"}), ("00", {"prompt": "2"})):
                headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"}
                httpx.post(url, json=body, headers=headers, timeout=60.0).raise_for_status()
            answer = httpx.post(url, json={"prompt": "none"}, timeout=60.0)
            assert answer.status_code == 422
        asked, refused = (one for one in collector.requests if one.name.startswith("POST"))
        assert (asked.span.trace_id.hex(), asked.parent) == (TRACE, PARENT)
        assert asked.attributes["onestep.model"] == NETWORK
        names = [stage.name for stage in collector.inside(asked)]
        assert names == ["queue", "forward", "encode"]
        begin, end = asked.span.start_time_unix_nano, asked.span.end_time_unix_nano
        for stage in collector.inside(asked):
            assert begin < stage.span.start_time_unix_nano + 1e6
            assert stage.span.end_time_unix_nano < end + 1e6
        assert refused.attributes["onestep.request_id"] == answer.headers["X-Request-Id"]
        assert refused.attributes["onestep.reason"] == "invalid"
        assert collector.inside(refused) == []
