"""The engine as other servers hold it: what differs between them and ours is the server alone."""

from typing import Any, Final

import torch

from onestep.serving.engine import Engine
from onestep.serving.loading import load_engine
from onestep.serving.native import GenerateRequest, accept, encode
from onestep.serving.settings import AppSettings

BUCKET: Final = AppSettings().bucket
VERSION: Final = "digits/1"


def engine() -> Engine:
    """The champion of the registry that the environment names, on one thread."""
    torch.set_num_threads(1)
    return load_engine(AppSettings())[0]


def files(engine: Engine, requests: list[dict[str, Any]]) -> list[bytes]:
    """The file of each request for one image, all made in one forward."""
    asked = [GenerateRequest.model_validate(request) for request in requests]
    rows = [accept(engine, one) for one in asked]
    return [
        encode(images, row, form=one.format, engine=engine, version=VERSION, quality="").content
        for one, row, images in zip(asked, rows, engine.sample(rows), strict=True)
    ]
