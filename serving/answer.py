"""A refusal as an HTTP answer, wherever on the way to the models it is made."""

from fastapi.responses import JSONResponse

from .schema import Refusal


def respond(answer: Refusal) -> JSONResponse:
    """The answer that tells a refusal.

    Args:
        answer: The refusal.

    Returns:
        The answer.
    """
    code = answer.status
    headers = {}
    if code in (429, 503):
        headers["Retry-After"] = str(answer.retry_after_s)
    if code == 408:  # OpenAI's clients would ask again, when nobody needs the images any more
        headers["X-Should-Retry"] = "false"
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(answer.model_dump(), status_code=code, headers=headers)
