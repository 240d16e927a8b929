"""A real mosquitto for tests."""

import asyncio
import subprocess
from pathlib import Path
from typing import Self

from dragon_core.topics import Topics
from dragon_runtime.certificates import ServerTls
from dragon_runtime.mosquitto import find_mosquitto, free_port, write_configuration
from dragon_runtime.settings.groups import BrokerSettings


class Broker:
    """A broker on a loopback port that can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        topics: Topics | None = None,
        tls: ServerTls | None = None,
        replicas: tuple[str, ...] = (),
    ) -> None:
        self.port = free_port()
        self._configuration = write_configuration(folder, port=self.port, topics=topics, tls=tls, replicas=replicas)
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> BrokerSettings:
        return BrokerSettings(host="127.0.0.1", port=self.port)

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - forks at once
                [find_mosquitto(), "-c", str(self._configuration)], stderr=log, stdout=log
            )
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.poll() is None, self._log.read_text()
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.kill()
