"""Channels of sessions over one MQTT connection: the device's end and a replica's."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from dragon_core.errors import OurError, PeerError
from dragon_core.topics import Topics
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.interfaces import LinkRestored

logger = logging.getLogger(__name__)

MAX_WAITING_FRAMES = 2048
"""Above any window times branches; what comes beyond is lost, which shows as a gap."""


class _Arrivals:
    """The half that both ends' channels share: frames that arrive."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._arrived: asyncio.Queue[bytes | LinkRestored] = asyncio.Queue()
        self._is_closed = False
        self._received_bytes = 0
        self.num_lost = 0

    @property
    def received_bytes(self) -> int:
        return self._received_bytes

    async def receive(self) -> bytes | LinkRestored:
        """The next frame, or that the connection is back; see `Channel`."""
        if self._is_closed:
            raise OurError("the channel is closed")
        return await self._arrived.get()

    def take(self, arrived: bytes | LinkRestored) -> None:
        """A frame arrived, or the connection is back."""
        if self._is_closed:
            return
        if self._arrived.qsize() >= MAX_WAITING_FRAMES:
            self.num_lost += 1
            return
        self._received_bytes += len(arrived) if isinstance(arrived, bytes) else 0
        self._arrived.put_nowait(arrived)

    def close(self) -> None:
        """Take nothing more; see `Channel`."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close()


class OpenerChannel(_Arrivals):
    """One session's frames at the device; see `Channel`. `up_topic_of` a replica is where frames to it go."""

    def __init__(
        self,
        connection: MqttConnection,
        *,
        open_topic: str,
        up_topic_of: Callable[[str], str],
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(on_close)
        self._connection, self._open_topic, self._up_topic_of = connection, open_topic, up_topic_of
        self._up_topic: str | None = None
        self._sent_bytes = 0

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes

    def send_open(self, frame: bytes) -> None:
        """Ask any replica for the session; see `Channel`."""
        self._sent_bytes += len(frame)
        self._connection.send_surely(self._open_topic, frame)

    def bind(self, replica: str) -> None:
        """Talk to this replica from now on; see `Channel`."""
        self._up_topic = self._up_topic_of(replica)

    def send(self, frame: bytes) -> None:
        """Queue a frame; lost as long as no replica is known. See `Channel`."""
        if self._up_topic is not None and self._connection.send(self._up_topic, frame):
            self._sent_bytes += len(frame)
        else:
            self.num_lost += 1


class ReplicaChannel(_Arrivals):
    """One session's frames at a replica, which talks to one device; see `Channel`."""

    def __init__(self, connection: MqttConnection, *, down_topic: str, on_close: Callable[[], None]) -> None:
        super().__init__(on_close)
        self._connection, self._down_topic = connection, down_topic
        self._sent_bytes = 0

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes

    def send_open(self, frame: bytes) -> None:
        """Never: the user is at the other end."""
        del frame
        raise OurError("only the end with the user opens a session")

    def bind(self, replica: str) -> None:
        """There is one device."""

    def send(self, frame: bytes) -> None:
        """Queue a frame; see `Channel`."""
        if self._connection.send(self._down_topic, frame):
            self._sent_bytes += len(frame)
        else:
            self.num_lost += 1


Opened = TypeVar("Opened", bound=_Arrivals)


class _Channels(Generic[Opened]):
    """Open channels by device and session: frames of others are dropped and counted."""

    def __init__(self, connection: MqttConnection, topics: Topics) -> None:
        self._connection, self._topics = connection, topics
        self._open: dict[tuple[str, str], Opened] = {}
        self._was_connected = connection.is_connected
        self.num_unknown = 0
        connection.on_change(self._on_change)

    def _on_change(self, is_connected: bool) -> None:
        if is_connected and self._was_connected:
            for channel in tuple(self._open.values()):
                channel.take(LinkRestored())
        self._was_connected = self._was_connected or is_connected

    def _forget(self, key: tuple[str, str]) -> None:
        self._open.pop(key, None)

    def _parse(self, topic: str) -> tuple[str, str] | None:
        try:
            return self._topics.parse(topic)
        except PeerError as error:
            self.num_unknown += 1
            logger.debug("%s", error)
            return None

    def _on_frame(self, topic: str, frame: bytes) -> None:
        key = self._parse(topic)
        channel = None if key is None else self._open.get(key)
        if channel is None:
            self.num_unknown += 1
        else:
            channel.take(frame)


class EdgeChannels(_Channels[OpenerChannel]):
    """The device's end."""

    def __init__(self, connection: MqttConnection, topics: Topics, device: str) -> None:
        super().__init__(connection, topics)
        self._device = device

    async def start(self) -> None:
        """Listen for the answers of replicas."""
        await self._connection.subscribe(self._topics.all_down(self._device), self._on_frame)

    def create(self, session: str) -> OpenerChannel:
        """A channel for a session that is about to be opened; `session` is 32 hexadecimal digits."""
        key = (self._device, session)
        self._open[key] = OpenerChannel(
            self._connection,
            open_topic=self._topics.open(self._device, session),
            up_topic_of=lambda replica: self._topics.up(self._device, replica, session),
            on_close=lambda: self._forget(key),
        )
        return self._open[key]


OpenHandler = Callable[[str, str, bytes, ReplicaChannel], None]
"""(device, session, first frame, channel)"""


class CloudChannels(_Channels[ReplicaChannel]):
    """A replica's end: `on_open` is called for every session that is new here."""

    def __init__(self, connection: MqttConnection, topics: Topics, replica: str, on_open: OpenHandler) -> None:
        super().__init__(connection, topics)
        self._replica, self._on_open = replica, on_open

    async def start(self) -> None:
        """Take sessions."""
        await self._connection.subscribe(self._topics.all_up(self._replica), self._on_frame)
        await self._connection.subscribe(self._topics.all_opens, self._on_open_frame, qos=1)

    async def stop_accepting(self) -> None:
        """Leave new sessions to other replicas; open ones go on."""
        await self._connection.unsubscribe(self._topics.all_opens)

    def _on_open_frame(self, topic: str, frame: bytes) -> None:
        key = self._parse(topic)
        if key is None:
            return
        known = self._open.get(key)
        if known is not None:
            known.take(frame)
            return
        device, session = key
        self._open[key] = ReplicaChannel(
            self._connection, down_topic=self._topics.down(device, session), on_close=lambda: self._forget(key)
        )
        self._on_open(device, session, frame, self._open[key])
