"""BentoML with the engine: bentoml serve onestep.benchmarks.peer_bentoml:Images."""

import base64
from typing import Any

import bentoml

from onestep.benchmarks.peer_engine import BUCKET, engine, files


@bentoml.service(workers=1, traffic={"timeout": 30})
class Images:
    """The route of ours; a batch is a list in JSON here, so a file travels as text."""

    def __init__(self) -> None:
        self.engine = engine()

    @bentoml.api(  # type: ignore[untyped-decorator]  # installed beside us
        batchable=True, max_batch_size=BUCKET, max_latency_ms=10_000, route="/v1/generate"
    )
    def generate(self, requests: list[dict[str, Any]]) -> list[str]:
        return [base64.b64encode(file).decode() for file in files(self.engine, requests)]
