"""A real mosquitto for tests."""

import asyncio
import subprocess
from pathlib import Path
from typing import Self

from dragon_core.topics import Topics
from dragon_runtime.certificates import ServerTls
from dragon_runtime.servers.mosquitto import find_mosquitto, free_port, write_configuration
from dragon_runtime.settings.groups import BrokerSettings


async def start_mosquitto(configuration: Path, log_file: Path, *, port: int) -> "subprocess.Popen[bytes]":
    """Start a broker; returns when it listens on `port` of the loopback."""
    with log_file.open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - forks at once
            [find_mosquitto(), "-c", str(configuration)], stderr=log, stdout=log
        )
    try:
        async with asyncio.timeout(10):
            while not await _listens(port):
                assert process.poll() is None, log_file.read_text()  # noqa: ASYNC240 - the test ends here
                await asyncio.sleep(0.01)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


class Broker:
    """A broker on a loopback port that can be killed and started again; `also` are lines of its configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        topics: Topics | None = None,
        tls: ServerTls | None = None,
        replicas: tuple[str, ...] = (),
        also: str = "",
    ) -> None:
        self.port = free_port()
        self._configuration = write_configuration(folder, port=self.port, topics=topics, tls=tls, replicas=replicas)
        with self._configuration.open("a") as file:
            file.write(f"{also}\n")
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> BrokerSettings:
        return BrokerSettings(host="127.0.0.1", port=self.port)

    async def start(self) -> None:
        self._process = await start_mosquitto(self._configuration, self._log, port=self.port)

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
