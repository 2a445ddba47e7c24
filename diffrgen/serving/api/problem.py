"""Responses of the API without a report."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

# The status codes of responses without a report, with their causes.
STATUSES = {
    400: "The body is damaged or the request is malformed.",
    401: "The token is missing or wrong.",
    404: "There is nothing at this address.",
    405: "The address takes another method.",
    408: "The body took too long to arrive.",
    413: "The body, an image or a text is too long.",
    415: "The body is not multipart/form-data.",
    422: "A field or an image is invalid.",
    429: "Too many requests of this client are open.",
    500: "Something went wrong in the service.",
    503: "Too many requests wait.",
}
RETRY_SECONDS = 30


class Problem(BaseModel):
    """Why there is no report: what was expected, and what came. Values of an upload's tags are never quoted."""

    error: str = Field(description="The fault.")
    expected: str = Field(description="The expected input.")
    got: str = Field(description="The received input.")


class RefusedError(Exception):
    """Ends a request with `status` and a problem."""

    def __init__(self, status: int, error: str, *, expected: str, got: str) -> None:
        super().__init__(error)
        self.status, self.problem = status, Problem(error=error, expected=expected, got=got)

    def response(self) -> JSONResponse:
        """Return the answer; where the body has not been read, the connection is closed instead of reading it."""
        headers = {"cache-control": "no-store"}
        if self.status in {401, 408, 413, 415}:
            headers["connection"] = "close"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status == 503:
            headers["retry-after"] = str(RETRY_SECONDS)
        return JSONResponse(self.problem.model_dump(), self.status, headers)


def json_refusal(status: int, reason: str) -> tuple[bytes, bytes]:
    """Return content type and body of what the guard refuses."""
    problem = Problem(error=reason, expected="POST /v1/reports, GET /healthz, /docs or /openapi.json", got=STATUSES[status])
    return b"application/json", problem.model_dump_json().encode()
