"""Access control: checks a request's Host, the web page it comes from, its key and its size.

The API listens on loopback, where every page in a browser can reach it: a name that another site lets point here (DNS
rebinding) is refused by its Host, a page of another site by its Origin.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragon_runtime.settings import is_loopback
from edge_daemon.api.errors import Problem

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Probes carry no key; what they answer names no document and no address."""
MAX_LENGTH_DIGITS = 18
MULTIPART_BYTES = 64 * 1024
"""Maximum size of a multipart body besides its file: boundaries and headers."""


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


def host_name(header: str) -> str:
    """The name or address in a Host header, without its port: `[::1]:8642` is `::1`; empty when it is neither."""
    found = _HOST.fullmatch(header.lower())
    return "" if found is None else found[1] or found[2]


class AddressGuard:
    """Refuses requests to names that are not ours and from pages that are not welcome."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().strip("[]") for host in allowed_hosts)
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self._problem(Headers(scope=scope))
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers) -> Problem | None:
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else ""
        if not (is_loopback(name) or name in self._hosts):
            message = f"the host {', '.join(hosts)!r} is not one this API answers to; add it to api.allowed_hosts"
            return Problem(status=HTTPStatus.FORBIDDEN, message=message, code="host_not_allowed")
        for origin in headers.getlist("origin"):
            if origin not in self._origins:
                message = f"pages of {origin!r} may not call this API; add the origin to api.allowed_origins"
                return Problem(status=HTTPStatus.FORBIDDEN, message=message, code="origin_not_allowed")
        return None


class KeyGuard:
    """Asks for `Authorization: Bearer KEY`, compared in a time that does not depend on where it differs."""

    def __init__(self, app: ASGIApp, *, key: SecretStr) -> None:
        self._app = app
        self._expected = key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_known(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            status=HTTPStatus.UNAUTHORIZED,
            message="this API needs its key, as `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await problem.response()(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._expected)
        return scheme.lower() == "bearer" and is_same


class BodyLimit:
    """Stops reading a body that is too large, wherever that shows first: in its announced length or in its bytes."""

    def __init__(self, app: ASGIApp, *, max_request_bytes: int, max_document_bytes: int) -> None:
        self._app = app
        self._max_request_bytes = max_request_bytes
        self._max_document_bytes = max_document_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"] == "/v1/documents"
        limit = self._max_document_bytes if is_upload else self._max_request_bytes
        room = limit + MULTIPART_BYTES if is_upload else limit
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and (len(announced) > MAX_LENGTH_DIGITS or int(announced) > room):
            await too_large(f"{announced} bytes", limit).response()(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit=limit, room=room), send)


def _counted(receive: Receive, *, limit: int, room: int) -> Callable[[], Awaitable[Message]]:
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > room:
            # FastAPI lets this class alone pass while it reads a body.
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_large(f"over {num_bytes} bytes", limit).message
            )
        return message

    return counted


def too_large(size: str, limit: int) -> Problem:
    """A body or a document above its limit, with both numbers."""
    return Problem(
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        message=f"the request has {size}; at most {limit} bytes are taken",
        code="request_too_large",
    )
