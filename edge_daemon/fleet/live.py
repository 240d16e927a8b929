"""Assembles the fleet parts of a device, and applies a new configuration while answers continue."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import metadata

from dragon_core.topics import Topics
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.process.logs import set_up_logging
from edge_daemon.answers import RequestDefaults
from edge_daemon.api.app import request_defaults
from edge_daemon.fleet.member import DeviceFacts, Member
from edge_daemon.fleet.renewal import Renewal
from edge_daemon.fleet.traffic import Traffic
from edge_daemon.fleet.twin import Twin
from edge_daemon.identity import DeviceIdentity, IdentityStore
from edge_daemon.session_answers import SessionAnswers
from edge_daemon.settings import EdgeSettings

logger = logging.getLogger(__name__)


def daemon_version() -> str:
    """Version of the package that runs."""
    try:
        return metadata.version("dragon-rag")
    except metadata.PackageNotFoundError:
        return "unknown"


class LiveSettings:
    """The settings in force now; what a running daemon cannot change stays as it was at its start."""

    def __init__(self, settings: EdgeSettings, answers: SessionAnswers) -> None:
        self.current = settings
        self._answers = answers

    def apply(self, settings: EdgeSettings) -> None:
        """Have new answers and log lines follow these."""
        if settings.log != self.current.log:
            set_up_logging(settings.log)
        self._answers.configure(settings)
        self.current = settings

    def request_defaults(self) -> RequestDefaults:
        """Defaults for requests that do not say."""
        return request_defaults(self.current.sampling, self.current.api)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """The parts of a running device that take part in its fleet. `restart` is set when another model must be loaded."""

    session: str
    twin: Twin
    facts: DeviceFacts
    traffic: Traffic
    live: LiveSettings
    restart: asyncio.Event | None


@asynccontextmanager
async def in_fleet(
    own: EdgeSettings, connection: MqttConnection, topics: Topics, given: Participation
) -> AsyncGenerator[None, None]:
    """Take part in the fleet inside the scope; with an identity that was enrolled it is renewed."""
    store = IdentityStore(own.data_folder)
    identity = _identity_in_use(store, own)

    def current_identity() -> DeviceIdentity | None:
        return None if identity is None else store.load()

    async with AsyncExitStack() as stack:
        member = await stack.enter_async_context(
            Member(
                connection,
                topics,
                own.device,
                session=given.session,
                twin=given.twin,
                facts=given.facts,
                traffic=given.traffic,
                identity=current_identity,
                apply=given.live.apply,
                restart=(lambda: None) if given.restart is None else given.restart.set,
            )
        )
        if identity is not None:
            renewal = Renewal(connection, topics, store, identity, on_renewed=lambda _: member.tell_again())
            await stack.enter_async_context(renewal)
        yield


def _identity_in_use(store: IdentityStore, own: EdgeSettings) -> DeviceIdentity | None:
    """The enrolled identity, unless the settings name certificates of their own."""
    if own.broker.certificate_file is None or own.broker.certificate_file.parent.parent != store.folder:
        return None
    return store.load()
