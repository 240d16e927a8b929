"""A TCP server that takes what it is sent, keeps it, and hangs up: a proxy that nobody should talk to, for example."""

import socket
import threading
from typing import Self

READ_SECONDS = 0.2
"""Long enough for a request on loopback; a client that sends nothing is left then."""


class Listener:
    """On a free port of the loopback. `received` has the first bytes of every connection."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_reached = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(READ_SECONDS)
                try:
                    self.received.append(connection.recv(65536))
                except OSError:
                    self.received.append(b"")
                self.is_reached.set()
