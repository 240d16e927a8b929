"""A device of a fleet without a model: it enrols, connects, and takes part as the daemon does."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from dragon_core.topics import Topics
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.channel.memory import MemoryChannel
from dragon_runtime.channel.probe import CloudProbe
from dragon_runtime.settings import load_settings
from edge_daemon.fleet.joining import Joining
from edge_daemon.fleet.member import DeviceFacts, Member, new_session, will_of
from edge_daemon.fleet.renewal import Renewal
from edge_daemon.fleet.traffic import Traffic
from edge_daemon.fleet.twin import Twin
from edge_daemon.identity import DeviceIdentity, IdentityStore
from edge_daemon.settings import EdgeSettings

FACTS = DeviceFacts(daemon_version="1.2.3", model="toy", vocabulary="ab" * 32)


async def enrol(token: str, data_folder: Path, *, answer_seconds: float = 15) -> DeviceIdentity:
    """Enrol as `dragon-edge join` does."""
    return await Joining(data_folder=data_folder, say=lambda _: None, answer_seconds=answer_seconds).join(token)


class FleetDevice:
    """A device whose identity is in a data folder; it can be killed, and started again."""

    def __init__(self, data_folder: Path) -> None:
        self.data_folder = data_folder
        self.settings = load_settings(EdgeSettings, overrides={"data_folder": data_folder})
        self.store = IdentityStore(data_folder)
        self.twin = Twin(self.settings)
        self.applied: list[EdgeSettings] = []
        self.renewed = asyncio.Event()
        self.restart = asyncio.Event()
        self.connections: list[bool] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings, session = self.settings, new_session()
        topics = Topics(settings.namespace, settings.deployment)
        will = will_of(topics, settings.device, session)
        self.connection = MqttConnection(settings.broker, client_id=f"dep-{settings.device}", will=will)
        self.connection.on_change(self.connections.append)
        await self._stack.enter_async_context(self.connection)
        self.member = Member(
            self.connection,
            topics,
            settings.device,
            session=session,
            twin=self.twin,
            facts=FACTS,
            traffic=Traffic(CloudProbe(lambda _: MemoryChannel())),
            identity=self.store.load,
            apply=self.applied.append,
            restart=self.restart.set,
        )
        await self._stack.enter_async_context(self.member)
        identity = self.store.load()
        assert identity is not None
        renewal = Renewal(self.connection, topics, self.store, identity, on_renewed=self._on_renewed)
        await self._stack.enter_async_context(renewal)
        return self

    def _on_renewed(self, _: DeviceIdentity) -> None:
        self.renewed.set()
        self.member.tell_again()

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def vanish(self) -> None:
        """Go without a goodbye, as a power cut does."""
        client = self.connection._client
        assert client is not None
        wire = client._client.socket()
        assert isinstance(wire, socket.socket)
        for task in self.member._tasks:
            task.cancel()
        if self.connection._task is not None:
            self.connection._task.cancel()
        wire.shutdown(socket.SHUT_RDWR)
