"""Metrics and health over HTTP, on a real socket."""

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from dragon_core.errors import SettingsError
from dragon_runtime.process.health_server import Readiness, serving
from dragon_runtime.servers.mosquitto import free_port


def test_a_daemon_is_alive_before_it_is_ready() -> None:
    registry, readiness, port = CollectorRegistry(), Readiness("models", "broker"), free_port()
    Counter("asked", "Questions.", registry=registry).inc(3)
    with serving("127.0.0.1", port, registry, lambda: readiness.problem):

        def get(path: str) -> tuple[int, str]:
            response = httpx.get(f"http://127.0.0.1:{port}{path}")
            return response.status_code, response.text.strip()

        assert get("/healthz") == (200, "ok")
        assert get("/readyz") == (503, "models: not there yet")
        readiness.set("models", "waiting for Triton:\nnobody\nanswers")
        assert get("/readyz") == (503, "models: waiting for Triton: nobody answers")
        readiness.set("models", None)
        assert get("/readyz") == (503, "broker: not there yet")
        readiness.set("broker", None)
        assert get("/readyz") == (200, "ready")
        readiness.set("broker", "the connection was lost")
        assert get("/readyz") == (503, "broker: the connection was lost")
        assert get("/metrics")[0] == 200
        assert "asked_total 3.0" in get("/metrics")[1]
        assert get("/")[0] == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_a_port_that_is_taken_is_named() -> None:
    registry, port = CollectorRegistry(), free_port()
    with (
        serving("127.0.0.1", port, registry, lambda: None),
        pytest.raises(SettingsError, match=f"metrics.port: cannot listen on 127.0.0.1:{port}"),
        serving("127.0.0.1", port, registry, lambda: None),
    ):
        pass
