"""A TCP relay that delays bytes each way and can be cut. Order within a connection is kept, with jitter too."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

CHUNK_BYTES = 65_536
MAX_WAITING_CHUNKS = 256
"""Per direction and connection; a sender that is faster waits."""


@dataclass(slots=True)
class Link:
    """What the line is like now; change it at any time. Round trip and jitter in seconds.

    While `is_cut`, bytes wait (a dead radio link: nobody is told) until it is restored.
    """

    rtt_seconds: float = 0.0
    jitter_seconds: float = 0.0
    is_cut: bool = False

    def one_way_seconds(self) -> float:
        """A delay for one chunk."""
        return self.rtt_seconds / 2 + random.uniform(0.0, self.jitter_seconds)


class LinkEmulator:
    """Relays connections to `target` over `link`."""

    def __init__(self, target: tuple[str, int], link: Link) -> None:
        self.link = link
        self._target = target
        self._restored = asyncio.Event()
        self._restored.set()
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[int]:
        """Relay inside the scope; yields the port, which the system chooses for port 0."""
        server = await asyncio.start_server(self._accept, host, port)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            self.reset()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing pass until `restore`; connections stay open."""
        self.link.is_cut = True
        self._restored.clear()

    def restore(self) -> None:
        """Let bytes pass again, those that waited first."""
        self.link.is_cut = False
        self._restored.set()

    def reset(self) -> None:
        """Close every connection."""
        for task in self._connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        for stream in (writer, upstream_writer):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            ways = [
                asyncio.create_task(self._carry(reader, upstream_writer)),
                asyncio.create_task(self._carry(upstream_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            upstream_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way: chunks are stamped on arrival and leave in order when their time has come."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_WAITING_CHUNKS)
        reading = asyncio.create_task(self._read(reader, line))
        clock = asyncio.get_running_loop().time
        try:
            while True:
                due, chunk = await line.get()
                if (wait := due - clock()) > 0:
                    await asyncio.sleep(wait)
                await self._restored.wait()
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            await line.put((clock() + self.link.one_way_seconds(), chunk))
            if not chunk:
                return
