"""Streams and addresses across Ray Serve, while an alias moves."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from onestep.methods.core.noise import draw_noise
from onestep.platform.registry.store import Registry
from onestep.serving.client import Client, ServiceError
from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.model import MEAN, SHAPE, STD
from onestep.tests.serving.registry import NETWORK, ORACLE, fill_registry
from onestep.tests.serving.waiting import until


@pytest.mark.slow
@pytest.mark.ray
def test_a_stream_across_ray_keeps_its_version_and_links_outlive_the_alias(tmp_path: Path) -> None:
    uri = fill_registry(tmp_path)
    settings = ServeSettings.from_dict(
        {"tracking_uri": uri, "port": 0, "bucket": 16, "strict": True, "memory_mb": 1}
    )
    asked = {"prompt": "1", "seed": 3, "response_format": "url"}
    with Hosted(settings) as hosted, Client(hosted.url) as client:
        link = httpx.post(f"{hosted.url}/v1/images/generations", json=asked).json()["data"][0]
        before = httpx.get(link["url"])
        before.raise_for_status()
        parts = client.stream(1, n=1500, seed=3)
        found = [next(parts)]
        registry = Registry(uri)
        registry.promote(registry.resolve(ORACLE), "champion", why="the oracle is exact")
        assert until(lambda: client.models()[0].version == ORACLE)
        found += parts
        assert {part.model for part in found} == {NETWORK}
        again = client.generate(1, n=64, seed=3, start=64, model=NETWORK)
        assert (found[1].images == again.images).all()
        assert sum(len(part.images) for part in found) == 1500
        assert httpx.get(link["url"]).headers["ETag"] == before.headers["ETag"]

        oracle = np.concatenate([part.images for part in client.stream(1, n=100, seed=3)])
        expected = MEAN + STD * draw_noise(100, SHAPE, seed=3)[0].numpy()
        np.testing.assert_allclose(oracle, expected, atol=1e-5)
        with pytest.raises(ServiceError, match="got 'digits/3'"):
            client.generate(1, model="digits/3")
