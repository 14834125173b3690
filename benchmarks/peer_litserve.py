"""LitServe with the engine: python peer_litserve.py PORT, in an environment that has it."""

import os
import sys
from typing import Any

import litserve
from fastapi import Response

from onestep.benchmarks.peer_engine import BUCKET, engine, files
from onestep.serving.cores import Cores


class Images(litserve.LitAPI):  # type: ignore[misc]  # installed beside us
    """The routes and bodies of ours, for one image a request."""

    def setup(self, device: str) -> None:
        del device
        # This process is there for the forwards alone. They get a core, as ours do.
        self.cores = Cores(1)
        os.sched_setaffinity(0, self.cores.take())
        self.engine = engine()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def predict(self, batch: list[dict[str, Any]]) -> list[bytes]:
        return files(self.engine, batch)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/x-npy")


if __name__ == "__main__":
    api = Images(max_batch_size=BUCKET, batch_timeout=0.005, api_path="/v1/generate")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
