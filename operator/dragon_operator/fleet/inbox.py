"""Messages of devices: births, deaths, heartbeats, reports. An invalid message changes nothing."""

import asyncio
import logging
from collections.abc import Callable, Collection

from dragon_core.errors import PeerError
from dragon_core.fleet.messages import LinkReport, Presence, PresenceEvent, Reported, decode
from dragon_core.topics import FleetTopic, Topics
from dragon_operator.fleet.presence import PresenceTable
from dragon_runtime.channel.connection import MqttConnection

logger = logging.getLogger(__name__)

MAX_DEVICES = 50_000
"""Devices with messages before it is known which devices are wanted."""


class Inbox:
    """Takes messages of devices into the presence table, and keeps the last report and measurements of each."""

    def __init__(self, topics: Topics, table: PresenceTable) -> None:
        self._topics, self._table = topics, table
        self.reported: dict[str, Reported] = {}
        self.links: dict[str, LinkReport] = {}
        self._heard: dict[str, float] = {}
        self._wanted: set[str] | None = None
        self._listeners: list[Callable[[str, Reported], None]] = []
        self.num_bad = 0

    async def start(self, connection: MqttConnection) -> None:
        """Listen to every device."""
        for kind in (FleetTopic.PRESENCE, FleetTopic.REPORTED, FleetTopic.LINK):
            await connection.subscribe(self._topics.all_fleet(kind), self.take, qos=1)

    def on_reported(self, listener: Callable[[str, Reported], None]) -> None:
        """Call `listener` with every report."""
        self._listeners.append(listener)

    def heard(self, device: str) -> float | None:
        """When a device was last heard of, by the loop's clock."""
        return self._heard.get(device)

    def keep(self, devices: Collection[str]) -> None:
        """Take messages of exactly these devices from now on."""
        first = self._wanted is None
        self._wanted = set(devices)
        known: dict[str, Reported] | dict[str, LinkReport] | dict[str, float]
        for known in (self.reported, self.links, self._heard):
            for device in known.keys() - self._wanted:
                del known[device]
        if first:
            for device in self.reported:
                self._table.touch(device)

    def take(self, topic: str, payload: bytes) -> None:
        """One message; an empty one is a retained message that was removed."""
        try:
            device, kind = self._topics.parse_fleet(topic)
            if payload and self._is_wanted(device):
                self._take(device, kind, payload)
        except PeerError as error:
            self.num_bad += 1
            logger.debug("%s: %s", topic[:200], error)

    def _is_wanted(self, device: str) -> bool:
        return len(self._table) < MAX_DEVICES if self._wanted is None else device in self._wanted

    def _take(self, device: str, kind: FleetTopic, payload: bytes) -> None:
        now = asyncio.get_running_loop().time()
        match kind:
            case FleetTopic.PRESENCE:
                presence = decode(payload, Presence)
                if presence.event is PresenceEvent.BIRTH:
                    self._table.birth(device, presence.session, now)
                else:
                    self._table.death(device, presence.session, presence.event, now)
            case FleetTopic.LINK:
                link = decode(payload, LinkReport)
                self._table.heartbeat(device, link.session, now)
                self._heard[device] = now
                if device not in self.links:
                    self._table.touch(device)
                self.links[device] = link
            case FleetTopic.REPORTED:
                reported = decode(payload, Reported)
                if self.reported.get(device) != reported:
                    self.reported[device] = reported
                    self._table.touch(device)
                for listener in self._listeners:
                    listener(device, reported)
            case _:
                pass
