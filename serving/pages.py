"""The pages and what they are made of: files of this folder, which need no network to be shown."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from fastapi import FastAPI, Response

_SCRIPT: Final = "text/javascript"
PAGES: Final = {
    "/": ("page.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", _SCRIPT) for name in ("page", "result", "curve", "server")},
    "/docs.js": ("docs.js", _SCRIPT),
}
"""File and media type by path; they hold nothing secret, so that all are open to everybody."""


def add_pages(api: FastAPI) -> None:
    """Lets an application serve the pages.

    Args:
        api: The application.
    """
    for path, (name, media) in PAGES.items():
        text = files(__package__).joinpath(name).read_text(encoding="utf-8")
        api.add_api_route(path, _shower(text, media), include_in_schema=False)


def _shower(text: str, media: str) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        return Response(text, media_type=media)

    return show
