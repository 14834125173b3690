"""A service behind a real socket."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from onestep.serving.api import build_api
from onestep.serving.service import Service
from onestep.serving.settings import AppSettings

DEFAULTS: Final = AppSettings()


def unwrapped(app: ASGIApp) -> ASGIApp:
    return app


@contextmanager
def listening(
    service: Service,
    wrap: Callable[[ASGIApp], ASGIApp] = unwrapped,
    settings: AppSettings = DEFAULTS,
) -> Iterator[str]:
    """The address of a uvicorn that answers with a service, in a thread of this process."""
    config = uvicorn.Config(wrap(build_api(service, settings)), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started:
                assert time.monotonic() < deadline, "uvicorn must start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
