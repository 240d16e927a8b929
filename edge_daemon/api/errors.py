"""Errors as OpenAI-shaped bodies: what went wrong, whose fault it is, what to do."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragon_core.errors import (
    CapacityError,
    DocumentError,
    DragonError,
    EngineError,
    PeerError,
    PromptTooLongError,
    RetryableError,
    StoreError,
    StoreFullError,
    shown,
)
from edge_daemon.answers import ConversationError

logger = logging.getLogger(__name__)

MAX_ERRORS_SHOWN = 5


class ApiError(DragonError):
    """A request that the API itself refuses."""

    def __init__(self, status: HTTPStatus, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error on its way to a client."""

    status: HTTPStatus
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        param = None if self.param is None else shown(self.param)
        # A browser's form, a header, a path, a model server: there are many ways into a message.
        return {"error": {"message": shown(self.message), "type": kind, "param": param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def problem_of(error: DragonError) -> Problem:
    """One of our errors, as the client sees it."""
    message = str(error)
    match error:
        case ApiError():
            return Problem(status=error.status, message=message, code=error.code, param=error.param)
        case PromptTooLongError():
            return Problem(
                status=HTTPStatus.BAD_REQUEST, message=message, code="context_length_exceeded", param="messages"
            )
        case RetryableError():
            code = "capacity" if isinstance(error, CapacityError) else "try_again"
            wait = {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
            return Problem(status=HTTPStatus.SERVICE_UNAVAILABLE, message=message, code=code, headers=wait)
        case DocumentError():
            return Problem(status=HTTPStatus.BAD_REQUEST, message=message, code="bad_document", param="file")
        case StoreError():
            if isinstance(error, StoreFullError):
                return Problem(status=HTTPStatus.INSUFFICIENT_STORAGE, message=message, code="store_full")
            return Problem(status=HTTPStatus.SERVICE_UNAVAILABLE, message=message, code="store_failed")
        case ConversationError():
            return Problem(status=HTTPStatus.BAD_REQUEST, message=message, code="bad_conversation", param="messages")
        case EngineError():
            return Problem(status=HTTPStatus.INTERNAL_SERVER_ERROR, message=message, code="engine_failed")
        case PeerError():
            return Problem(status=HTTPStatus.BAD_GATEWAY, message=message, code="peer_failed")
    return Problem(status=HTTPStatus.INTERNAL_SERVER_ERROR, message=message, code="failed")


def parameter_name(location: Sequence[int | str]) -> str:
    """`("body", "messages", 0, "content")` as a reader writes it: `messages[0].content`."""
    name = ""
    for part in location[1:]:  # the first says where it stands: body, query or path
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else part
    return name


def problem_of_validation(error: RequestValidationError) -> Problem:
    """Names the first parameter that does not fit, and says what is wrong with each."""
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid":
        message = f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
        return Problem(status=HTTPStatus.BAD_REQUEST, message=message, code="invalid_json")
    if parameter_name(first["loc"]) == "" and first["type"] in _NO_OBJECT:
        message = "the body must be a JSON object, sent with Content-Type: application/json"
        return Problem(status=HTTPStatus.BAD_REQUEST, message=message, code="invalid_json")
    codes = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
    code = codes.get(first["type"], first["type"] if first["type"] == "unsupported_parameter" else "invalid_value")
    lines = []
    for item in found[:MAX_ERRORS_SHOWN]:
        reason = "there is no such parameter" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{_parameter_of(item)}: {reason}")
    message = "; ".join(lines)
    return Problem(status=HTTPStatus.BAD_REQUEST, message=message, code=code, param=_parameter_of(first))


_NO_OBJECT = {"missing", "model_attributes_type", "dict_type"}


def _parameter_of(item: dict[str, Any]) -> str:
    """The parameter an error is about; a check of several parameters together names one itself."""
    return str(item.get("ctx", {}).get("param") or parameter_name(item["loc"]))


async def _on_dragon_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DragonError)  # noqa: S101 - registered for this class only
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return problem.response()


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    return problem_of_validation(error).response()


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.NOT_FOUND:
        message = f"there is nothing at {request.method} {request.url.path}"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.url.path} does not take {request.method}"
    else:
        message = str(error.detail)
    headers = dict(error.headers or {})
    return Problem(status=status, message=message, code=_CODES.get(status), headers=headers).response()


_CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_body",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
}


def register(app: FastAPI) -> None:
    """Answer every error of a route in OpenAI's shape."""
    app.add_exception_handler(DragonError, _on_dragon_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


class WatchedSend:
    """Passes messages on and notes whether a response has begun: after that it can only be ended, not replaced."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def __call__(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)


class ErrorBoundary:
    """Outermost: logs an unexpected error in full; the client only learns that an error happened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watched = WatchedSend(send)
        try:
            await self._app(scope, receive, watched)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if watched.is_started:
                raise  # the server cuts the connection: an answer must not look complete
            message = "something unexpected went wrong; the log of the edge daemon says what"
            problem = Problem(status=HTTPStatus.INTERNAL_SERVER_ERROR, message=message, code="internal_error")
            await problem.response()(scope, receive, send)
