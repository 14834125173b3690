"""Why a request gets no images, as it travels."""

from typing import Final

from .errors import RequestRefused
from .schema import Fault, Kind, Refusal

_KINDS: Final[dict[int, Kind]] = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


def refusal(refused: RequestRefused) -> Refusal:
    """The refusal as it travels over HTTP."""
    return Refusal(
        error=Fault(
            message=str(refused),
            type=_KINDS.get(refused.status, "invalid_request_error"),
            param=refused.param,
            code=refused.status,
        ),
        retry_after_s=refused.retry_after_s,
        is_predicted=refused.is_predicted,
    )
