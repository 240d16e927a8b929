"""The devices of one deployment, over one connection to its broker: sends configurations, receives reports."""

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from dragon_core.errors import DragonError, OurError, RetryableError
from dragon_core.fleet.messages import Desired, Reported, configuration_version, encode
from dragon_core.topics import FleetTopic, Topics, require_device_name
from dragon_operator.fleet.desk import EnrolmentDesk
from dragon_operator.fleet.dynamic_security import DynamicSecurity
from dragon_operator.fleet.enrolment import Enrolment, OnIssued, SignRequest
from dragon_operator.fleet.inbox import Inbox
from dragon_operator.fleet.presence import PresenceState, PresenceTable
from dragon_operator.fleet.security_plan import close_join, plan_security, retained_topics
from dragon_operator.fleet.values import DesiredDevice, DeviceReport, FleetSummary, SyncResult
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.process.tasks import end_tasks
from dragon_runtime.settings.groups import BrokerSettings

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
MAX_RETRY_SECONDS = 60.0


class Fleet:
    """Keeps a broker and its devices in the desired state; use it inside `async with`.

    `sign` and `on_issued` answer requests for certificates: `on_issued` is awaited before one is delivered, and what it
    raises refuses it for now. `ca` is the PEM by which devices trust the broker.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        topics: Topics,
        *,
        sign: SignRequest,
        on_issued: OnIssued,
        ca: Callable[[], str],
        heartbeat_seconds: float = 15.0,
        max_changes_per_second: float = 10.0,
        refresh_seconds: float = 300.0,
        client_id: str = "operator",
    ) -> None:
        self._topics, self._refresh_seconds = topics, refresh_seconds
        self._connection = MqttConnection(broker, client_id=client_id)
        self._security = DynamicSecurity(self._connection)
        self._table = PresenceTable(heartbeat_seconds=heartbeat_seconds, max_changes_per_second=max_changes_per_second)
        self._enrolment = Enrolment(sign=sign, on_issued=on_issued, ca=ca)
        self._inbox = Inbox(topics, self._table)
        self._desk = EnrolmentDesk(self._connection, topics, self._enrolment, self._wanted_device)
        self._wanted: Mapping[str, DesiredDevice] | None = None
        self._kept: frozenset[str] = frozenset()
        self._published: dict[str, bytes] = {}
        self._told_link: dict[str, float] = {}
        self._sync_lock, self._reconnected = asyncio.Lock(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._security.start()
        # Answers that the broker kept come first: what devices report then tells which of them are used.
        await self._desk.start()
        await self._inbox.start(self._connection)
        self._inbox.on_reported(self._on_reported)
        self._table.pause(asyncio.get_running_loop().time())
        self._connection.on_change(self._on_change)
        await self._connection.__aenter__()
        self._tasks = {
            asyncio.create_task(self._sync_after_reconnects(), name="fleet sync"),
            asyncio.create_task(self._desk.serve(), name="fleet enrolment"),
        }
        for task in self._tasks:
            task.add_done_callback(_log_failure)
        return self

    async def __aexit__(self, *error: object) -> None:
        await end_tasks(self._tasks)
        await self._connection.__aexit__(*error)

    @property
    def is_connected(self) -> bool:
        return self._connection.is_connected

    @property
    def problem(self) -> str:
        """Why the broker is not connected; empty while it is."""
        return self._connection.problem

    async def sync(self, devices: Sequence[DesiredDevice], *, kept: Collection[str] = ()) -> SyncResult:
        """Bring the broker to exactly these devices and send each its configuration. Doing it again changes nothing.

        Nothing changes for devices in `kept`, whose desired configuration cannot be read. Without a connection the
        list is kept and applied as soon as there is one.

        Raises:
            OurError: a device is listed twice, or the broker refuses. RetryableError: it cannot be reached now.
        """
        wanted: dict[str, DesiredDevice] = {}
        problems: dict[str, str] = {}
        for device in devices:
            try:
                wanted[require_device_name(device.name)] = device
            except OurError as error:
                problems[device.name] = str(error)
        if len(wanted) + len(problems) != len(devices):
            raise OurError("a device is twice in the list of the fleet")
        readable_again = self._kept - set(kept)
        self._wanted, self._kept = MappingProxyType(wanted), frozenset(kept)
        now = asyncio.get_running_loop().time()
        self._table.track(wanted.keys() | self._kept, now)
        for name in readable_again:
            self._table.touch(name)
        self._inbox.keep(wanted.keys() | self._kept)
        async with self._sync_lock:
            result = await self._bring_about()
        return SyncResult(num_changes=result.num_changes, problems={**result.problems, **problems})

    async def reports(self) -> AsyncIterator[DeviceReport]:
        """Devices about which something changed, each as a whole, no faster than the rate given. For one reader."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._touch_links(now)
            # All are made at once: one made later could tell of another state than the table counts as told.
            for report in [self.report(device) for device in self._table.changes(now)]:
                if report is not None:
                    yield report
            # What the reader took for these counts: a crowd must not make the rate lower than it may be.
            await asyncio.sleep(now + TICK_SECONDS - loop.time())

    def report(self, device: str) -> DeviceReport | None:
        """The current report of a device; None for a device that is not in the fleet."""
        wanted = (self._wanted or {}).get(device)
        if wanted is None:
            return None
        loop_now = asyncio.get_running_loop().time()
        presence = self._table.presence(device, loop_now)
        heard = self._inbox.heard(device)
        ago = None if heard is None else dt.timedelta(seconds=loop_now - heard)
        return DeviceReport(
            device=device,
            presence=presence.state,
            reason=presence.reason,
            last_seen=None if ago is None else dt.datetime.now(dt.UTC) - ago,
            reported=self._inbox.reported.get(device),
            link=self._inbox.links.get(device),
            is_joined=wanted.join is None or self._enrolment.is_used(wanted),
        )

    def summary(self) -> FleetSummary:
        """The fleet as a whole."""
        now = asyncio.get_running_loop().time()
        counts = self._table.count(PresenceState, now)
        links = [
            link
            for device, link in self._inbox.links.items()
            if self._table.presence(device, now).state is PresenceState.READY
        ]
        return FleetSummary(
            ready=counts[PresenceState.READY],
            stale=counts[PresenceState.STALE],
            unreachable=counts[PresenceState.UNREACHABLE],
            unknown=counts[PresenceState.UNKNOWN],
            hit_rate=_mean([link.hit_rate for link in links]),
            rtt_seconds=_mean([link.rtt_seconds for link in links]),
            edge_placements=sum(link.placement == "edge" for link in links),
            cloud_placements=sum(link.placement == "cloud" for link in links),
        )

    # -- what is wanted -------------------------------------------------------------------------------------------

    def _wanted_device(self, name: str) -> DesiredDevice | None:
        if self._wanted is None:
            raise RetryableError("the devices of the fleet are not known yet", retry_after_seconds=5.0)
        return self._wanted.get(name)

    async def _bring_about(self) -> SyncResult:
        wanted = self._wanted or {}
        state = await self._security.state()
        # The broker may have forgotten which tokens were used; this operator may not know what the broker does.
        used = self._enrolment.used
        plan = plan_security(state, tuple(wanted.values()), self._topics, now=time.time(), used=used, kept=self._kept)
        self._enrolment.restore_used(plan.used_joins)
        await self._security.run(plan.commands)
        num_twins = 0
        for name in plan.removed:
            self._enrolment.forget(name)
            self._published.pop(name, None)
            for topic in retained_topics(self._topics, name):
                await self._connection.publish(topic, b"", is_retained=True)
        for device in wanted.values():
            num_twins += await self._publish_twin(device)
        return SyncResult(num_changes=len(plan.commands) + num_twins, problems=plan.problems)

    async def _publish_twin(self, device: DesiredDevice) -> bool:
        heartbeat = self._table.heartbeat_seconds
        version = configuration_version(device.configuration, heartbeat_seconds=heartbeat)
        desired = Desired(
            configuration_version=version, heartbeat_seconds=heartbeat, configuration=device.configuration
        )
        payload = encode(desired)
        if self._published.get(device.name) == payload:
            return False
        await self._connection.publish(self._topics.fleet(device.name, FleetTopic.DESIRED), payload, is_retained=True)
        self._published[device.name] = payload
        return True

    def _on_change(self, is_connected: bool) -> None:
        now = asyncio.get_running_loop().time()
        if is_connected:
            self._table.resume(now)
            self._published.clear()
            self._reconnected.set()
        else:
            self._table.pause(now)

    async def _sync_after_reconnects(self) -> None:
        """A broker that came back may have lost everything."""
        delay = 1.0
        while True:
            await self._reconnected.wait()
            self._reconnected.clear()
            if self._wanted is None:
                continue
            try:
                async with self._sync_lock:
                    await self._bring_about()
                delay = 1.0
            except DragonError as error:
                logger.warning("the fleet is not as it should be: %s", error)
                await asyncio.sleep(delay)
                delay = min(MAX_RETRY_SECONDS, 2 * delay)
                if self.is_connected:
                    self._reconnected.set()

    # -- what is --------------------------------------------------------------------------------------------------

    def _on_reported(self, device: str, reported: Reported) -> None:
        if self._enrolment.take_reported(device, reported):
            task = asyncio.get_running_loop().create_task(self._close_join(device), name="close join")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _close_join(self, device: str) -> None:
        # What fails here is done by the next sync.
        with contextlib.suppress(RetryableError, OurError):
            await self._security.run([close_join(device)])
            await self._connection.publish(self._topics.enrolment_response(device), b"", is_retained=True)

    def _touch_links(self, now: float) -> None:
        """Measurements alone are reported now and then: they change with every heartbeat."""
        for device in tuple(self._told_link.keys() - self._inbox.links.keys()):
            del self._told_link[device]
        for device in self._inbox.links:
            if now - self._told_link.setdefault(device, now) >= self._refresh_seconds:
                self._told_link[device] = now
                self._table.touch(device)


def _log_failure(task: "asyncio.Task[None]") -> None:
    """A task that should never end by itself did: a defect that must be seen."""
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s failed and is not running any more", task.get_name(), exc_info=task.exception())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
