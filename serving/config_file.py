"""The Serve config file of a service: what ``serve deploy`` takes, and KubeRay's RayService."""

import shlex
from collections.abc import Sequence
from typing import Any, Final

import yaml

from ..platform.password import hide_passwords
from .settings import AppSettings, ServeSettings

APP_NAME: Final = "onestep"
LOGGING: Final = {"log_level": "WARNING", "enable_access_log": False}
_BUILDER: Final = "onestep.serving.app:build"


def config_of(settings: ServeSettings) -> dict[str, Any]:
    """A Serve config file, as plain values.

    Aliases stay aliases: the application looks them up where it is built.

    Args:
        settings: The service; its port is a number, since no process is there to choose one.

    Returns:
        The document.

    Raises:
        ValueError: If the port is 0.
    """
    if settings.port == 0:
        raise ValueError("serve.port must be a number in a Serve config file, got 0")
    return {
        "proxy_location": settings.proxies,
        "http_options": {
            "host": settings.host,
            "port": settings.port,
            "request_timeout_s": settings.proxy_timeout_s,
        },
        "logging_config": dict(LOGGING),
        "applications": [
            {
                "name": APP_NAME,
                "route_prefix": "/",
                "import_path": _BUILDER,
                "args": _changed(settings.app),
            }
        ],
    }


def config_file(settings: ServeSettings, words: Sequence[str]) -> str:
    """A Serve config file, as text that says how it was made.

    Args:
        settings: The service.
        words: What the command was given.
    """
    line = hide_passwords(shlex.join(["onestep", "serve", "--config-file", *words]))
    text = yaml.safe_dump(config_of(settings), sort_keys=False)
    return f"# Made by: {' '.join(line.splitlines())}\n{text}"


def _changed(app: AppSettings) -> dict[str, Any]:
    """The references, and what differs from the defaults."""
    values, defaults = app.to_dict(), AppSettings().to_dict()
    names = {"models": list(app.models)} if app.models else {"model": app.model}
    others = {
        name: value
        for name, value in values.items()
        if name not in ("model", "models") and value != defaults[name]
    }
    return names | others
