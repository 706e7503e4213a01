"""Errors as HTTP responses: the table from exception to status, and the JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import (
    Cancelled,
    ImageError,
    ModelNotFoundError,
    NumericsError,
    OutOfMemoryError,
    StarflowError,
    TextError,
    UsageError,
)


class RequestError(StarflowError):
    """A request that is refused.

    status: of the HTTP response. param, code: of the JSON error. retry_after: seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after


@dataclass(frozen=True)
class Answer:
    """The HTTP response for an error."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


TABLE: tuple[tuple[type[BaseException], int, str], ...] = (  # the first match counts
    (Cancelled, 400, "cancelled"),
    (ModelNotFoundError, 404, "model_not_found"),
    (OutOfMemoryError, 503, "out_of_memory"),
    (NumericsError, 500, "not_finite"),
    (ImageError, 400, "invalid_image"),
    (TextError, 400, "invalid_prompt"),
    (UsageError, 400, "invalid_value"),
    (StarflowError, 500, "server_error"),
    (MemoryError, 503, "out_of_memory"),
)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def answer(error: BaseException) -> Answer:
    """Status, JSON body and headers for any exception. Unexpected errors give no details."""
    if isinstance(error, RequestError):
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return Answer(error.status, body(error), headers)
    for kind, status, _ in TABLE:
        if isinstance(error, kind):
            return Answer(status, body(error), {})
    return Answer(500, body(error), {})


def body(error: BaseException) -> dict[str, Any]:
    """The JSON body {"error": {"message", "type", "param", "code"}}, as in the OpenAI API."""
    param, status, message = None, 500, "The server failed; see its log."
    code: str | None = "server_error"
    if isinstance(error, RequestError):
        status, param, code = error.status, error.param, error.code
        message = " ".join(str(error).split())
    else:
        for kind, found, name in TABLE:
            if isinstance(error, kind):
                status, code = found, name
                message = " ".join(str(error).split()) or "There is not enough memory."
                break
    kind_name = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind_name, "param": param, "code": code}}
