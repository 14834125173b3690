"""A refusal as an HTTP answer, wherever on the way to the models it is made."""

from typing import Final

from fastapi.responses import JSONResponse

from .schema import Refusal

RETRY_AFTER_S: Final = 1
"""Seconds until a client should ask again where nothing better is known."""


def respond(answer: Refusal, *, retry_after_s: int = RETRY_AFTER_S) -> JSONResponse:
    """The answer that tells a refusal.

    Args:
        answer: The refusal.
        retry_after_s: Seconds until another attempt may do better, told with 429 and 503.

    Returns:
        The answer.
    """
    code = answer.error.code
    headers = {}
    if code in (429, 503):
        headers["Retry-After"] = str(retry_after_s)
    if code == 408:  # OpenAI's clients would ask again, when nobody needs the images any more
        headers["X-Should-Retry"] = "false"
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(answer.model_dump(), status_code=code, headers=headers)
