"""Ports for servers on this machine."""

import socket

import pytest

from dragon_runtime.servers import mosquitto


def test_a_free_port_is_one_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", port := mosquitto.free_port()))
        monkeypatch.setattr(mosquitto, "SERVER_PORTS", range(port, port + 2))
        assert {mosquitto.free_port() for _ in range(8)} == {port + 1}
        second.bind(("127.0.0.1", port + 1))
        with pytest.raises(OSError, match=f"no port from {port} to {port + 1} is free"):
            mosquitto.free_port()
