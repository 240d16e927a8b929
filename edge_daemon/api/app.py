"""Assembles the API, and serves it while a scope lasts."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.middleware.cors import CORSMiddleware

from dragon_core.errors import SettingsError
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.documents.service import DocumentService
from dragon_runtime.settings import is_loopback
from edge_daemon.answers import AnswerService, RequestDefaults
from edge_daemon.api.chat import chat_router
from edge_daemon.api.documents import documents_router
from edge_daemon.api.errors import ErrorBoundary, register
from edge_daemon.api.health import health_router
from edge_daemon.api.security import AddressGuard, BodyLimit, KeyGuard
from edge_daemon.settings import ApiSettings, SamplingSettings

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
GRACE_SECONDS = 5


def create_app(
    *,
    answers: AnswerService,
    documents: DocumentService,
    metrics: PeerMetrics,
    settings: ApiSettings,
    api_key: SecretStr | None,
    defaults: Callable[[], RequestDefaults] | None = None,
) -> FastAPI:
    """The API. `api_key` is `settings.api_key()`, read by the caller so that a bad file stops the start.

    `defaults` says what holds where a request does not; without it the settings' defaults do.

    Raises:
        SettingsError: an address that other machines reach, without a key.
    """
    if api_key is None and (settings.api_key_file is not None or not is_loopback(settings.host)):
        raise SettingsError(f"api: host {settings.host}, api_key_file {settings.api_key_file}: there is no key")
    # No pages for people: they would load scripts from elsewhere into an origin that reads private documents.
    app = FastAPI(title="DRAGON edge", docs_url=None, redoc_url=None, redirect_slashes=False)
    register(app)
    app.include_router(health_router(answers, metrics))
    app.include_router(chat_router(answers, defaults or (lambda: request_defaults(SamplingSettings(), settings))))
    app.include_router(documents_router(documents, settings))
    _guard(app, settings, api_key)
    return app


def request_defaults(sampling: SamplingSettings, api: ApiSettings) -> RequestDefaults:
    """Defaults from the settings for requests that do not say."""
    return RequestDefaults(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=api.default_max_tokens)


def _guard(app: FastAPI, settings: ApiSettings, api_key: SecretStr | None) -> None:
    """From the inside out: what is added last sees a request first."""
    app.add_middleware(
        BodyLimit, max_request_bytes=settings.max_request_bytes, max_document_bytes=settings.max_document_bytes
    )
    if api_key is not None:
        app.add_middleware(KeyGuard, key=api_key)
    if settings.allowed_origins:
        # Before the key: a browser asks for permission without one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
        )
    own = () if settings.host in WILDCARDS else (settings.host,)
    app.add_middleware(
        AddressGuard, allowed_hosts=(*settings.allowed_hosts, *own), allowed_origins=settings.allowed_origins
    )
    app.add_middleware(ErrorBoundary)


class _Server(uvicorn.Server):
    """Signals belong to the daemon, which ends the scope."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` inside the scope; yields the port, which the system chooses for port 0.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    bound = _bind(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.serve(sockets=[bound]), name="http api")
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait({task})
            if left := server.server_state.tasks:
                await asyncio.wait(left)  # it told them to end, and what they use is closed next


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens before the first request can be sent to it."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            bound.listen()
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise SettingsError(f"api.host, api.port: cannot listen on {host}:{port}: {error}") from error
    return bound
