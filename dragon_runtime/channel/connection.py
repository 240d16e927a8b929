"""One connection to the broker: connects, subscribes, and does both again whenever it was lost. MQTT 5 with aiomqtt.

What is published here with QoS 0 is lost while there is no connection; the session above notices and resumes.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dragon_core.errors import OurError, RetryableError, SettingsError
from dragon_runtime.channel.client import BrokerClient, packet_bytes
from dragon_runtime.channel.retries import LASTING_SECONDS, Retries
from dragon_runtime.process.tasks import end_tasks, wait_at_most
from dragon_runtime.settings.groups import BrokerSettings

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 10
SESSION_TAKEN_OVER = 0x8E
"""Reason of MQTT 5: another client connected with this client id."""
SUSPICIOUS_CONNECTIONS = 3
"""So many that end early, one after the other, look like another client's: not every broker gives the reason."""
MAX_WAITING_FRAMES = 4096
PUBLISH_SECONDS = 10.0
FLUSH_SECONDS = 1.0

MessageHandler = Callable[[str, bytes], None]
"""Called with topic and payload; must not raise."""


@dataclass(frozen=True, slots=True)
class _Subscription:
    qos: int
    handler: MessageHandler


class MqttConnection:
    """A connection that comes back. Use it inside `async with`."""

    def __init__(self, settings: BrokerSettings, *, client_id: str, will: aiomqtt.Will | None = None) -> None:
        self._settings, self._client_id, self._will = settings, client_id, will
        self._subscriptions: dict[str, _Subscription] = {}
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._wake = asyncio.Event()
        self._is_written = asyncio.Event()
        self._client: BrokerClient | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_dropped = 0
        self._connected_at: float | None = None
        self._num_short = 0
        self._rivalry, self._told = "", ""
        self.problem = "not connected yet"

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    @property
    def rivalry(self) -> str:
        """That another client uses this identity, or seems to, until a connection of ours has lasted; else nothing."""
        return "" if self._lasted_seconds() >= LASTING_SECONDS else self._rivalry

    @property
    def status(self) -> str:
        """The connection in a few words for people."""
        return self.problem or self.rivalry or "connected"

    async def wait_until_connected(self) -> None:
        """Return as soon as the subscriptions stand."""
        await self._connected.wait()

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with whether there is a connection, whenever it comes, goes, or cannot be made."""
        self._listeners.append(listener)

    async def __aenter__(self) -> Self:
        tls_context(self._settings)  # a bad file stops the start
        self._task = asyncio.create_task(self._stay_connected(), name="mqtt")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._flush()
        await end_tasks(task for task in (self._task, *self._tasks) if task is not None)

    async def _flush(self) -> None:
        """Let what was sent go out: the last words of a session tell the other end not to wait for us."""
        if self._client is not None and self._waiting:
            self._is_written.clear()
            self._wake.set()
            await wait_at_most(self._is_written.wait(), FLUSH_SECONDS)

    async def subscribe(self, topic_filter: str, handler: MessageHandler, *, qos: int = 0) -> None:
        """Have messages of `topic_filter` handled from now on, and after every reconnect."""
        self._subscriptions[topic_filter] = _Subscription(qos, handler)
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):  # a connection that is lost now subscribes when it is back
                await self._client.subscribe(topic_filter, qos=qos)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Undo `subscribe`; what arrives later is ignored."""
        self._subscriptions.pop(topic_filter, None)
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):  # without a connection there is nothing to undo
                await self._client.unsubscribe(topic_filter)

    def send(self, topic: str, payload: bytes) -> bool:
        """Publish with QoS 0, in order, without waiting; false when it is lost: there is no connection or no room, or
        it is larger than the broker takes.
        """
        if self._client is None or len(self._waiting) >= MAX_WAITING_FRAMES or self._is_too_large(topic, payload):
            self.num_dropped += 1
            return False
        self._waiting.append((topic, payload))
        self._wake.set()
        return True

    def send_surely(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1 without waiting; a failure is logged, the caller's own deadline deals with it."""
        task = asyncio.get_running_loop().create_task(self._publish_logged(topic, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> None:
        """Publish with QoS 1 and wait until the broker has it.

        Raises:
            RetryableError: there is no connection, or the broker did not answer. OurError: it does not allow this, or
                not a message as large as this.
        """
        if self._client is None:
            raise RetryableError(f"the broker is not connected: {self.problem}", retry_after_seconds=1.0)
        if problem := self._size_problem(topic, payload, qos=1):
            raise OurError(problem)
        try:
            await self._client.publish(topic, payload, qos=1, retain=is_retained, timeout=PUBLISH_SECONDS)
        except aiomqtt.MqttCodeError as error:
            raise OurError(f"the broker refused to publish to {topic}: {error}") from error
        except aiomqtt.MqttError as error:
            said = f"the broker did not take a message of {len(payload)} bytes: {error}"
            raise RetryableError(said, retry_after_seconds=1.0) from error

    def _size_problem(self, topic: str, payload: bytes, *, qos: int) -> str:
        """That the broker would end the connection over this message, or nothing."""
        limit = None if self._client is None else self._client.max_packet_bytes
        size = packet_bytes(topic, payload, qos=qos)
        if limit is None or size <= limit:
            return ""
        return f"a message of {size} bytes to {topic} is not sent: the broker takes at most {limit}"

    def _is_too_large(self, topic: str, payload: bytes) -> bool:
        problem = self._size_problem(topic, payload, qos=0)
        if problem:
            logger.warning("%s", problem)
        return bool(problem)

    async def _publish_logged(self, topic: str, payload: bytes) -> None:
        try:
            await self.publish(topic, payload)
        except (OurError, RetryableError) as error:
            # That there is no connection was said when it was lost.
            logger.log(logging.WARNING if self.is_connected else logging.DEBUG, "%s", error)

    # -- the connection -------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        retries = Retries()
        while True:
            self._connected_at = None
            try:
                async with self._new_client() as client:
                    self._connected_at = asyncio.get_running_loop().time()
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, SettingsError) as error:
                self._explain(error)
                self._tell(is_connected=False)
            await asyncio.sleep(retries.next_delay(self._lasted_seconds()))

    def _lasted_seconds(self) -> float:
        """How long the last connection has been there, or was there when it was lost."""
        return 0.0 if self._connected_at is None else asyncio.get_running_loop().time() - self._connected_at

    def _explain(self, error: Exception) -> None:
        """Say why there is no connection, once for a row of connections that do not last."""
        if self._lasted_seconds() >= LASTING_SECONDS:
            self._rivalry, self._told, self._num_short = "", "", 0
        elif self._connected_at is not None:
            self._num_short += 1
        # Of a connection that was lost while messages were awaited, the reason is the cause.
        reason = error.__cause__ if isinstance(error.__cause__, aiomqtt.MqttError) else error
        self.problem = f"{self._settings.host}:{self._settings.port}: {reason}"
        if isinstance(reason, aiomqtt.MqttCodeError) and getattr(reason.rc, "value", reason.rc) == SESSION_TAKEN_OVER:
            self._rivalry = f"another client uses this identity ({self._client_id}): stop one of the two"
        elif self._num_short >= SUSPICIOUS_CONNECTIONS and not self._rivalry:
            self._rivalry = (
                f"the broker ended {self._num_short} connections in a row soon after they were made: "
                f"perhaps another client uses this identity ({self._client_id})"
            )
        if self._rivalry and self._connected_at is not None:
            self.problem = f"{self._settings.host}:{self._settings.port}: {self._rivalry}"
        if self.problem != self._told:
            logger.warning("the broker is not connected: %s", self.problem)
            self._told = self.problem

    async def _serve(self, client: BrokerClient) -> None:
        for topic_filter, subscription in tuple(self._subscriptions.items()):
            await client.subscribe(topic_filter, qos=subscription.qos)
        self._client, self.problem = client, ""
        self._waiting.clear()
        self._tell(is_connected=True)
        writing = asyncio.create_task(self._write(client), name="mqtt writer")
        try:
            async for message in client.messages:
                payload = message.payload
                self._handle(str(message.topic), payload if isinstance(payload, bytes) else b"")
        finally:
            self._client = None
            await end_tasks([writing])
            self._tell(is_connected=False)

    async def _write(self, client: BrokerClient) -> None:
        while True:
            while self._waiting:
                topic, payload = self._waiting.popleft()
                await client.publish(topic, payload)
            self._is_written.set()
            self._wake.clear()
            await self._wake.wait()

    def _handle(self, topic: str, payload: bytes) -> None:
        for topic_filter, subscription in self._subscriptions.items():
            if aiomqtt.Topic(topic).matches(topic_filter):
                subscription.handler(topic, payload)
                return

    def _tell(self, *, is_connected: bool) -> None:
        if is_connected:
            self._connected.set()
        else:
            self._connected.clear()
        for listener in self._listeners:
            listener(is_connected)

    def _new_client(self) -> BrokerClient:
        settings = self._settings
        password = settings.password()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho does not annotate it
        properties.SessionExpiryInterval = 0
        return BrokerClient(
            settings.host,
            settings.port,
            identifier=self._client_id,
            username=settings.username,
            password=None if password is None else password.get_secret_value(),
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=properties,
            keepalive=KEEPALIVE_SECONDS,
            will=self._will,
            timeout=PUBLISH_SECONDS,
            tls_context=tls_context(settings),
            # Without it a small message waits for the acknowledgement of the one before.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """How a broker is trusted, and who we are to it; None without TLS.

    Raises:
        SettingsError: a file cannot be used.
    """
    if settings.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        if settings.certificate_file is not None:
            context.load_cert_chain(str(settings.certificate_file), str(settings.key_file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"broker.ca_file, broker.certificate_file, broker.key_file: cannot be used: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
