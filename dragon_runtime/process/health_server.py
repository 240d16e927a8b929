"""Metrics and health of a daemon over HTTP, on a thread of its own: /metrics, /healthz and /readyz."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from dragon_core.errors import SettingsError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

TEXT = ("Content-Type", "text/plain; charset=utf-8")


class Readiness:
    """What a daemon still waits for before it can work. Read from any thread."""

    def __init__(self, *parts: str) -> None:
        """`parts`: what must be there, in the order in which it comes."""
        self._missing = {part: f"{part}: not there yet" for part in parts}

    def set(self, part: str, problem: str | None) -> None:
        """A part works, or what is wrong with it in one line."""
        # Replaced as a whole: another thread may be reading.
        missing = dict(self._missing)
        if problem is None:
            missing.pop(part, None)
        else:
            missing[part] = f"{part}: {' '.join(problem.split())}"
        self._missing = missing

    @property
    def problem(self) -> str | None:
        """Why the daemon is not ready, or None when it is."""
        return next(iter(self._missing.values()), None)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Probes and scrapes come every few seconds: they are not logged."""


@contextlib.contextmanager
def serving(host: str, port: int, registry: CollectorRegistry, problem: Callable[[], str | None]) -> Iterator[None]:
    """Serve inside the scope; `problem` says why the daemon is not ready, or None.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    metrics = make_wsgi_app(registry)

    def answer(environment: "WSGIEnvironment", respond: "StartResponse") -> Iterable[bytes]:
        match environment["PATH_INFO"]:
            case "/metrics":
                scraped: Iterable[bytes] = metrics(environment, respond)
                return scraped
            case "/healthz":
                status, said = "200 OK", "ok"
            case "/readyz":
                found = problem()
                status, said = ("200 OK", "ready") if found is None else ("503 Service Unavailable", found)
            case _:
                status, said = "404 Not Found", "there are /metrics, /healthz and /readyz"
        respond(status, [TEXT])
        return [f"{said}\n".encode()]

    try:
        server = make_server(host, port, answer, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"metrics.host, metrics.port: cannot listen on {host}:{port}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
