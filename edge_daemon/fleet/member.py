"""A device in its fleet: announces itself, receives its desired configuration, and reports the result."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import aiomqtt

from dragon_core.errors import DragonError, ModelError, OurError, PeerError, RetryableError
from dragon_core.fleet.messages import Configuration, Desired, Presence, PresenceEvent, Reported, decode, encode
from dragon_core.topics import FleetTopic, Topics
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.process.tasks import end_tasks, wait_at_most
from dragon_runtime.redaction import redacted
from edge_daemon.fleet.traffic import Traffic
from edge_daemon.fleet.twin import MODELS, Twin, configured
from edge_daemon.identity import DeviceIdentity
from edge_daemon.settings import EdgeSettings

logger = logging.getLogger(__name__)

DEFAULT_HEARTBEAT_SECONDS = 15.0
GOODBYE_SECONDS = 2.0
RETRY_SECONDS = 1.0
FETCH_RETRY_SECONDS = 60.0


def new_session() -> str:
    """Names one run of the daemon; drawn, since a device's clock may stand still or go back."""
    return secrets.token_hex(16)


def will_of(topics: Topics, device: str, session: str) -> aiomqtt.Will:
    """The message that the broker publishes when it loses the device."""
    payload = encode(Presence(session=session, event=PresenceEvent.LOST))
    return aiomqtt.Will(topics.fleet(device, FleetTopic.PRESENCE), payload, qos=1, retain=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """Facts about a device."""

    daemon_version: str
    model: str
    vocabulary: str


class Member:
    """Use it inside `async with`, in the scope of the connection whose will is `will_of` the same session.

    `apply` takes settings that are in force from now on; `restart` is called when another model is to be loaded.
    """

    def __init__(
        self,
        connection: MqttConnection,
        topics: Topics,
        device: str,
        *,
        session: str,
        twin: Twin,
        facts: DeviceFacts,
        traffic: Traffic,
        identity: Callable[[], DeviceIdentity | None],
        apply: Callable[[EdgeSettings], None],
        restart: Callable[[], None],
    ) -> None:
        self._connection, self._topics, self._device, self._session = connection, topics, device, session
        self._twin, self._facts, self._traffic, self._identity = twin, facts, traffic, identity
        self._apply, self._restart = apply, restart
        self._wake, self._wanted = asyncio.Event(), asyncio.Event()
        self._is_born, self._is_reported = False, False
        self._error = ""
        self._sequence = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._connection.on_change(self._on_change)
        await self._connection.subscribe(self._topic(FleetTopic.DESIRED), self._on_desired, qos=1)
        self._tasks = [
            asyncio.create_task(self._tell(), name="fleet member"),
            asyncio.create_task(self._fetch_models(), name="fleet model"),
        ]
        self._wanted.set()
        return self

    async def __aexit__(self, *error: object) -> None:
        await end_tasks(self._tasks)
        with contextlib.suppress(DragonError):
            await wait_at_most(self._presence(PresenceEvent.STOPPED), GOODBYE_SECONDS)

    def tell_again(self) -> None:
        """A reported fact changed, the certificate for example."""
        self._is_reported = False
        self._wake.set()

    def _topic(self, kind: FleetTopic) -> str:
        return self._topics.fleet(self._device, kind)

    def _on_change(self, is_connected: bool) -> None:
        self._is_born = False
        if is_connected:
            self._wake.set()

    # -- configuration --------------------------------------------------------------------------------------------

    def _on_desired(self, _topic: str, payload: bytes) -> None:
        if not payload:
            return  # the operator wants nothing any more
        try:
            is_new = self._twin.take(decode(payload, Desired))
            self._error = ""
        except PeerError as error:
            self._error = f"the configuration cannot be read: {error}"
            logger.warning("the operator sent a configuration that this daemon cannot read: %s", error)
            self.tell_again()
            return
        if is_new:
            if self._twin.problem:
                logger.warning("the configuration from the operator cannot be applied: %s", self._twin.problem)
            else:
                logger.info("received configuration %s from the operator", self._twin.observed)
            self._apply(self._twin.settings)
            self._wanted.set()
        self.tell_again()

    async def _fetch_models(self) -> None:
        """Get the wanted model while the one before it answers, then ask for a restart."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._twin.needs_model:
                continue
            wanted = self._twin.wanted_model
            settings = self._twin.settings
            try:
                if wanted is not None:
                    source = configured(settings, Configuration(), wanted).model
                    await resolve_model(source, settings.data_folder / MODELS)
            except ModelError as error:
                logger.warning("%s", error)
                self._error = str(error)
                self.tell_again()
                await wait_at_most(self._wanted.wait(), FETCH_RETRY_SECONDS)
                self._wanted.set()
                continue
            if wanted == self._twin.wanted_model and self._twin.needs_model:
                self._error = ""
                self._twin.use_model()
                self._restart()
                return

    # -- what is --------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await self._connection.wait_until_connected()
            self._wake.clear()
            try:
                if not self._is_born:
                    await self._presence(PresenceEvent.BIRTH)
                    self._is_born, self._is_reported, due = True, False, 0.0
                if not self._is_reported:
                    self._is_reported = True
                    await self._report()
                if loop.time() >= due:
                    await self._heartbeat()
                    due = loop.time() + (self._twin.heartbeat_seconds or DEFAULT_HEARTBEAT_SECONDS)
            except (RetryableError, OurError) as error:
                self._is_born = False
                logger.debug("the fleet was not notified: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await wait_at_most(self._wake.wait(), due - loop.time())

    async def _presence(self, event: PresenceEvent) -> None:
        payload = encode(Presence(session=self._session, event=event))
        await self._connection.publish(self._topic(FleetTopic.PRESENCE), payload, is_retained=True)

    async def _report(self) -> None:
        identity = self._identity()
        error = self._twin.problem or self._error
        reported = Reported(
            session=self._session,
            observed=self._twin.observed,
            applied="" if error else self._twin.applied,
            error=redacted(error)[:500],
            needs_restart=self._twin.needs_model,
            daemon_version=self._facts.daemon_version[:128],
            model=self._facts.model[:128],
            vocabulary=self._facts.vocabulary[:128],
            certificate_serial="" if identity is None else identity.certificate.serial_number,
            certificate_expires=0 if identity is None else int(identity.certificate.expires.timestamp()),
        )
        await self._connection.publish(self._topic(FleetTopic.REPORTED), encode(reported), is_retained=True)

    async def _heartbeat(self) -> None:
        self._sequence += 1
        placement = self._twin.settings.placement
        link = self._traffic.report(session=self._session, sequence=self._sequence, pinned=placement)
        await self._connection.publish(self._topic(FleetTopic.LINK), encode(link))
