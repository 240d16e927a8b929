"""Who holds a connection to which broker: one per deployment, with the identity it has now; reports come in over it."""

import asyncio
import datetime as dt
import logging
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dragon_core.errors import DragonError
from dragon_core.topics import Topics
from dragon_operator.credentials.certificates import OPERATOR_IDENTITY
from dragon_operator.credentials.plan import Credentials
from dragon_operator.credentials.secret import decoded
from dragon_operator.devices.configuration import wanted_version
from dragon_operator.devices.device import Device, presence_status
from dragon_operator.devices.device_statuses import DeviceStatuses
from dragon_operator.fleet import DeviceReport, Fleet, Issued
from dragon_operator.look.conditions import Condition, Reason, State
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.settings import OperatorSettings
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Key
from dragon_runtime.certificates import IssuedCertificate, write_secret
from dragon_runtime.process.tasks import end_tasks
from dragon_runtime.settings import BrokerSettings

logger = logging.getLogger(__name__)


@dataclass
class BrokerConnection:
    """A connection to the broker of one deployment, and the deployment as it is now."""

    fleet: Fleet
    made_from: str
    deployment: Deployment
    credentials: Credentials
    stack: AsyncExitStack


class BrokerConnections:
    """Implements `FleetView`."""

    def __init__(
        self,
        settings: OperatorSettings,
        statuses: DeviceStatuses,
        metrics: OperatorMetrics,
        *,
        clock: Callable[[], dt.datetime],
        sync_soon: Callable[[Key], None],
        look_later: Callable[[Key], None],
    ) -> None:
        """`sync_soon` has the devices of a deployment synced, `look_later` the deployment reconciled at leisure."""
        self._settings, self._statuses, self._metrics, self._clock = settings, statuses, metrics, clock
        self._sync_soon, self._look_later = sync_soon, look_later
        self._open: dict[Key, BrokerConnection] = {}
        self._revoked: dict[Key, frozenset[str]] = {}

    async def open(self, deployment: Deployment, credentials: Credentials) -> None:
        """Have a connection to the deployment's broker, with the identity it has now."""
        key = (deployment.namespace, deployment.name)
        identity = credentials.secrets[deployment.child(OPERATOR_IDENTITY)]
        devices = deployment.spec.devices
        made_from = digest(identity["data"], deployment.inner_broker, devices.heartbeat_seconds)
        known = self._open.get(key)
        if known is not None and known.made_from == made_from:
            is_changed = known.deployment.spec != deployment.spec
            known.deployment, known.credentials = deployment, credentials
            if is_changed:
                self._sync_soon(key)
            return
        await self.close(*key)
        self._open[key] = await self._connect(deployment, credentials, made_from)
        self._sync_soon(key)

    async def close(self, namespace: str, name: str) -> None:
        """Have no connection."""
        known = self._open.pop((namespace, name), None)
        if known is not None:
            await known.stack.aclose()

    async def close_all(self) -> None:
        """Have no connections at all."""
        for key in tuple(self._open):
            await self.close(*key)

    def get(self, key: Key) -> BrokerConnection | None:
        """The connection there is."""
        return self._open.get(key)

    def revoked(self, namespace: str, name: str) -> frozenset[str]:
        """Numbers of the certificates that the broker must refuse, as last seen."""
        return self._revoked.get((namespace, name), frozenset())

    def revoke(self, key: Key, numbers: frozenset[str]) -> None:
        """Take the numbers of the certificates to refuse: the broker's list follows with the next reconcile."""
        if numbers != self.revoked(*key):
            self._revoked[key] = numbers
            self._look_later(key)

    def summary(self, namespace: str, name: str) -> tuple[dict[str, Any], list[State]]:
        """Status fields about the devices, and a condition when there are any."""
        known = self._open.get((namespace, name))
        if known is None or not (found := known.fleet.summary()).total:
            return {"fleet": None, "traffic": None}, []
        labels = (namespace, name)
        for state in ("ready", "stale", "unreachable"):
            self._metrics.devices.labels(*labels, state).set(getattr(found, state))
        fields = {
            "fleet": {
                "summary": f"{found.ready}/{found.total}",
                "ready": found.ready,
                "stale": found.stale,
                "unreachable": found.unreachable,
                "total": found.total,
            },
            "traffic": {
                "hitRate": None if found.hit_rate is None else f"{found.hit_rate:.2f}",
                "rttSeconds": None if found.rtt_seconds is None else f"{found.rtt_seconds:.3f}",
                "edgePlacements": found.edge_placements,
                "cloudPlacements": found.cloud_placements,
            },
        }
        counts = f"{found.ready} of {found.total} devices are online"
        if not known.fleet.is_connected:
            message = f"the operator has no connection to the broker: {known.fleet.problem}"
            return fields, [State(Condition.EDGES, None, Reason.FLEET_UNREACHABLE, message)]
        if found.ready == found.total:
            return fields, [State(Condition.EDGES, True, Reason.ALL_CONNECTED, counts)]
        message = f"{counts}: run `kubectl get edgedevices` to see which are not"
        return fields, [State(Condition.EDGES, False, Reason.SOME_MISSING, message)]

    async def _connect(self, deployment: Deployment, credentials: Credentials, made_from: str) -> BrokerConnection:
        key = (deployment.namespace, deployment.name)
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dragon-operator-")))
            identity = credentials.secrets[deployment.child(OPERATOR_IDENTITY)]
            host, port = deployment.inner_broker
            broker = BrokerSettings(
                host=host,
                port=port,
                ca_file=_file(folder, identity, "ca.crt"),
                certificate_file=_file(folder, identity, "tls.crt"),
                key_file=_file(folder, identity, "tls.key"),
            )
            fleet = await stack.enter_async_context(
                Fleet(
                    broker,
                    Topics(*key),
                    sign=partial(self._sign, key),
                    on_issued=partial(self._on_issued, key),
                    ca=partial(self._ca, key),
                    heartbeat_seconds=deployment.spec.devices.heartbeat_seconds,
                    max_changes_per_second=self._settings.max_status_writes_per_second,
                )
            )
            task = asyncio.create_task(self._follow(key, fleet), name=f"fleet of {key[0]}/{key[1]}")
            stack.push_async_callback(end_tasks, [task])
            return BrokerConnection(fleet, made_from, deployment, credentials, stack.pop_all())

    async def _sign(self, key: Key, device: str, request: bytes) -> IssuedCertificate:
        current = self._open[key]
        valid = dt.timedelta(days=current.deployment.spec.devices.certificate_days)
        return current.credentials.broker_authority.sign(request, common_name=device, valid=valid)

    def _ca(self, key: Key) -> str:
        return self._open[key].credentials.broker_ca

    async def _follow(self, key: Key, fleet: Fleet) -> None:
        async for report in fleet.reports():
            try:
                await self._on_report(key, report)
            except DragonError as error:
                logger.warning("the status of EdgeDevice %s/%s was not written: %s", key[0], report.device, error)
            self._look_later(key)

    async def _on_report(self, key: Key, report: DeviceReport) -> None:
        known = self._open.get(key)
        if known is None:
            return

        def part(device: Device) -> dict[str, Any]:
            return presence_status(device, report, wanted_version(known.deployment, device), self._clock())

        await self._statuses.write(key[0], report.device, part)

    async def _on_issued(self, key: Key, issued: Issued) -> None:
        await self._statuses.record(key[0], issued)
        self._sync_soon(key)


def _file(folder: Path, secret: Object, key: str) -> Path:
    path = folder / key
    write_secret(path, decoded(secret, key))
    return path
