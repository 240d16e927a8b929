"""A channel between two processes of one machine: a local socket whose frames arrive half a round trip after sending.

The clock that times them is the machine's own, so a slow reader adds nothing to the delay.
"""

import asyncio
import struct
import time
from typing import Any

import msgspec

from dragon_core.errors import OurError

_HEADER = struct.Struct("<IdB")
_FRAME, _RECORD = 0, 1


class DelayedChannel:
    """One end of one answer; see `Channel`. Records are the benchmark's own and not delayed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.delay_seconds = 0.0
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._records: asyncio.Queue[Any] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read(), name="delayed channel")
        self.sent_bytes = 0
        self.received_bytes = 0

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                size, sent_at, kind = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                body = await self._reader.readexactly(size)
                if kind == _RECORD:
                    self._records.put_nowait(msgspec.json.decode(body))
                    continue
                self.received_bytes += size
                wait = sent_at + self.delay_seconds - time.monotonic()
                if wait > 0:
                    loop.call_later(wait, self._frames.put_nowait, body)
                else:
                    self._frames.put_nowait(body)
        except asyncio.IncompleteReadError:
            self._records.put_nowait(None)

    def _write(self, body: bytes, kind: int) -> None:
        self._writer.write(_HEADER.pack(len(body), time.monotonic(), kind) + body)

    def send_record(self, record: object) -> None:
        """Tell the other process something that is no part of the answer."""
        self._write(msgspec.json.encode(record), _RECORD)

    async def receive_record(self) -> Any:
        """What the other process told.

        Raises:
            OurError: it is gone.
        """
        record = await self._records.get()
        if record is None:
            raise OurError("the other process closed the connection")
        return record

    def send_open(self, frame: bytes) -> None:
        """As `send`: there is one replica."""
        self.send(frame)

    def bind(self, replica: str) -> None:
        """There is one replica."""

    def send(self, frame: bytes) -> None:
        """Send a frame and count its bytes."""
        self.sent_bytes += len(frame)
        self._write(frame, _FRAME)

    async def receive(self) -> bytes:
        """The next frame that has arrived."""
        return await self._frames.get()

    def close(self) -> None:
        """Keep the socket: records may follow. `hang_up` ends it."""

    async def hang_up(self) -> None:
        """Close the socket."""
        self._writer.close()
        self._pump.cancel()
        await asyncio.gather(self._pump, self._writer.wait_closed(), return_exceptions=True)
