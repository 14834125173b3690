"""The real application over small models, and a server of it on a free port."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import uvicorn

from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.guidance_scale import AtScale
from onestep.platform.registry.record import ModelRecord
from onestep.serving.api import build_api
from onestep.serving.desk import Desk
from onestep.serving.engine import Engine
from onestep.serving.known import Known
from onestep.serving.schema import Ancestor
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.serving.shelf import Shelf
from onestep.tests.serving.model import GRID, UNET_NODE, gaussian, record_of, unet

OPEN: Final = AppSettings(access_log=False)
CURVES: Final = {
    "eval/1nn_accuracy/nfe_1": 0.75,
    "eval/1nn_deviation/nfe_1": 0.25,
    "eval/1nn_deviation/nfe_4": 0.125,
}
KNOWN: Final = Known(
    lineage=(Ancestor(version="faces/2", method="FlowMatching"), Ancestor(version="faces/1"))
)
NAMES: Final = {
    "champion": ["digits/1"],
    "digits/1": ["digits/1"],
    "grid@best": ["grid/2"],
    "wide/1": ["wide/1"],
    "guided/1": ["guided/1"],
    "lost/1": ["lost/1"],
}


def service(version: str) -> EngineService:
    """The service of a version: a network, one of few steps, one of other images, one guided."""
    flow_map: FlowMap
    record: ModelRecord
    match version:
        case "digits/1":
            flow_map, record = unet(), replace(record_of(net=UNET_NODE), metrics=CURVES)
        case "grid/2":
            flow_map, record = gaussian(domain=GRID), record_of(domain=GRID)
        case "wide/1":
            shape = (3, 4, 4)
            flow_map = gaussian(shape=shape, classes=0)
            record = record_of(shape=shape, classes=0, label_names=())
        case "guided/1":
            flow_map, record = AtScale(unet(guided=True), scale=2.0), record_of(net=UNET_NODE)
        case _:
            raise ValueError("its weights were altered")
    engine = Engine(flow_map, record, bucket=16, strict=True)
    known = KNOWN if version == "digits/1" else None
    return EngineService(engine, name="", version=version, known=known)


async def _run(server: uvicorn.Server, desk: Desk, listening: socket.socket) -> None:
    await desk.serve(NAMES)
    desk.note("grid@best", "grid/3 does not load: its weights were altered")
    await server.serve(sockets=[listening])


@contextmanager
def served(settings: AppSettings = OPEN) -> Iterator[str]:
    """Serves the names inside the block, of which one does not load, and gives the address.

    Args:
        settings: Who may ask.
    """
    desk = Desk(Shelf(service, memory_bytes=10**8))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(build_api(desk, settings), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(_run(server, desk, listening),))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
