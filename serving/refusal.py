"""Why a request gets no images, as it travels."""

from typing import Final

from .errors import RequestRefused, UnknownModel
from .schema import Fault, Kind, Refusal

_KINDS: Final[dict[int, Kind]] = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_CODES: Final = {
    401: "invalid_api_key",
    404: "not_found",
    408: "timeout",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "service_unavailable",
}


def refusal(refused: RequestRefused) -> Refusal:
    """The refusal as it travels over HTTP."""
    is_model = isinstance(refused, UnknownModel)
    error = Fault(
        message=str(refused),
        type=_KINDS.get(refused.status, "invalid_request_error"),
        param=refused.param,
        code="model_not_found" if is_model else _CODES.get(refused.status),
    )
    return Refusal(error=error).at(
        refused.status,
        retry_after_s=refused.retry_after_s,
        is_predicted=refused.is_predicted,
    )
