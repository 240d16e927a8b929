"""The devices of every deployment: one connection per broker, join tokens out, certificates and presence in."""

import asyncio
import datetime as dt
import logging
import secrets as random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dragon_core.errors import DragonError, SettingsError
from dragon_core.join_token import JoinToken
from dragon_core.topics import Topics
from dragon_operator import names
from dragon_operator.conditions import Condition, Reason, State
from dragon_operator.credentials import OPERATOR_IDENTITY, Credentials, decoded
from dragon_operator.deployment import Deployment, Object, digest
from dragon_operator.device import (
    Device,
    configuration,
    enrolment_status,
    issued_status,
    join_secret_object,
    join_token,
    known_join_token,
    merged,
    missing_deployment_status,
    open_join,
    presence_status,
    refused_status,
    wanted_version,
)
from dragon_operator.fleet import DesiredDevice, DeviceReport, Fleet, Issued
from dragon_operator.kube import Kube
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.names import Key
from dragon_operator.settings import OperatorSettings
from dragon_operator.status import is_same
from dragon_runtime.certificates import IssuedCertificate, write_secret
from dragon_runtime.settings import BrokerSettings
from dragon_runtime.tasks import end_tasks

logger = logging.getLogger(__name__)

SECRET_BYTES = 32


@dataclass
class Open:
    """A connection to the broker of one deployment."""

    fleet: Fleet
    made_from: str
    deployment: Deployment
    credentials: Credentials
    stack: AsyncExitStack


class DeviceKeeper:
    """Implements `FleetView`, and `sync` for what devices themselves need."""

    def __init__(
        self,
        kube: Kube,
        settings: OperatorSettings,
        metrics: OperatorMetrics,
        *,
        clock: Callable[[], dt.datetime],
        sync_soon: Callable[[Key], None],
        look_later: Callable[[Key], None],
    ) -> None:
        """`sync_soon` has `sync` called, `look_later` the deployment reconciled at leisure."""
        self._kube, self._settings, self._metrics, self._clock = kube, settings, metrics, clock
        self._sync_soon, self._look_later = sync_soon, look_later
        self._open: dict[Key, Open] = {}
        self._revoked: dict[Key, frozenset[str]] = {}
        self._writing = asyncio.Lock()

    # -- FleetView ---------------------------------------------------------------------------------------------------

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

    def revoked(self, namespace: str, name: str) -> frozenset[str]:
        """Numbers of the certificates that the broker must refuse, as last seen."""
        return self._revoked.get((namespace, name), frozenset())

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

    # -- devices -----------------------------------------------------------------------------------------------------

    async def sync(self, key: Key) -> None:
        """Have the broker know exactly the devices there are, each with its token, rights and configuration.

        Raises:
            RetryableError: the API server or the broker does not answer.
        """
        namespace, name = key
        devices, refused = await self._devices(key)
        known = self._open.get(key)
        if known is None:
            if await self._kube.get(names.DEPLOYMENT_KIND, name, namespace) is None:
                message = f"there is no DragonDeployment {name} in this namespace: create it, or recreate the device"
                for device in devices:
                    await self._tell(device, missing_deployment_status(device, message, self._clock()))
            return
        tokens = {device.name: await self._token(known, device) for device in devices}
        revoked = frozenset(number for device in devices for number in device.revoked_numbers())
        if revoked != self.revoked(*key):
            self._revoked[key] = revoked
            self._look_later(key)
        now = self._clock()
        failure: DragonError | None = None
        problems: Mapping[str, str] = {}
        try:
            desired = [_desired(known, device, tokens[device.name], now) for device in devices]
            problems = (await known.fleet.sync(desired, kept=refused)).problems
        except DragonError as error:
            failure = error
            problems = {device.name: str(error) for device in devices}
        for device in devices:
            said = problems.get(device.name)
            await self._tell(device, enrolment_status(device, tokens[device.name], now, problem=said))
        if failure is not None:
            raise failure

    async def _devices(self, key: Key) -> tuple[list[Device], list[str]]:
        """(devices of a deployment, names of those whose spec is invalid, whose status now says so)."""
        found, refused = [], []
        for obj in await self._kube.list(names.DEVICE_KIND, key[0]):
            name = obj["metadata"]["name"]
            if obj["spec"].get("deployment") != key[1] or obj["metadata"].get("deletionTimestamp"):
                continue
            try:
                found.append(Device.from_object(obj))
            except SettingsError as error:
                logger.warning("EdgeDevice %s/%s: %s", key[0], name, error)
                refused.append(name)
                status = refused_status(obj, str(error), self._clock())
                if not is_same(status, obj.get("status") or {}):
                    await self._kube.write_status(names.DEVICE_KIND, name, key[0], status)
        return found, refused

    async def _token(self, known: Open, device: Device) -> JoinToken | None:
        """The join token of a device, made when there is none; taken away once its certificate is in use."""
        report = known.fleet.report(device.name)
        is_joined = device.is_token_used and report is not None and report.is_joined
        if device.spec.revoked or is_joined:
            if device.status.get("joinToken"):
                await self._kube.delete("Secret", names.join_secret(device.name), device.namespace)
            return None
        if device.is_token_used and not device.status.get("joinToken"):
            return None  # it was seen to be gone: of thousands of devices most are so
        secret = await self._kube.get("Secret", names.join_secret(device.name), device.namespace)
        token, ca = known_join_token(secret, device), known.credentials.broker_ca
        if token is not None:
            # The broker may have another address since it was made, or a certificate of another authority.
            anew = join_token(known.deployment, device, ca=ca, secret=token.secret, now=self._clock())
            current = msgspec.structs.replace(anew, expires=token.expires)
            if current == token:
                return token
            token = current
        elif device.is_token_used:
            return None
        else:
            value = random.token_urlsafe(SECRET_BYTES)
            token = join_token(known.deployment, device, ca=ca, secret=value, now=self._clock())
        await self._kube.apply(join_secret_object(device, token))
        return token

    async def _tell(self, device: Device, part: dict[str, Any]) -> None:
        """Write a part of a status, unless the device says so already."""
        if not is_same(merged(device, part), device.status):
            await self._write(device.namespace, device.name, lambda _: part)

    async def _write(self, namespace: str, name: str, part: Callable[[Device], dict[str, Any]]) -> None:
        """Write the part of a status that `part` makes of the device as it is now."""
        async with self._writing:
            # Another part may have been written since it was read: the list of conditions is written as a whole.
            obj = await self._kube.get(names.DEVICE_KIND, name, namespace)
            if obj is None:
                return
            device = Device.from_object(obj)
            status = merged(device, part(device))
            if is_same(status, device.status):
                return
            await self._kube.write_status(names.DEVICE_KIND, name, namespace, status)
            self._metrics.status_writes.labels(names.DEVICE_KIND).inc()

    # -- one broker --------------------------------------------------------------------------------------------------

    async def _connect(self, deployment: Deployment, credentials: Credentials, made_from: str) -> Open:
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

            async def sign(device: str, request: bytes) -> IssuedCertificate:
                current = self._open[key]
                valid = dt.timedelta(days=current.deployment.spec.devices.certificate_days)
                return current.credentials.broker_authority.sign(request, common_name=device, valid=valid)

            fleet = await stack.enter_async_context(
                Fleet(
                    broker,
                    Topics(*key),
                    sign=sign,
                    on_issued=partial(self._on_issued, key),
                    ca=partial(self._ca, key),
                    heartbeat_seconds=deployment.spec.devices.heartbeat_seconds,
                    max_changes_per_second=self._settings.max_status_writes_per_second,
                )
            )
            task = asyncio.create_task(self._follow(key, fleet), name=f"fleet of {key[0]}/{key[1]}")
            stack.push_async_callback(end_tasks, [task])
            return Open(fleet, made_from, deployment, credentials, stack.pop_all())

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

        await self._write(key[0], report.device, part)

    async def _on_issued(self, key: Key, issued: Issued) -> None:
        """Write down a certificate before the device gets it: what is lost on the way can be refused later."""
        obj = await self._kube.get(names.DEVICE_KIND, issued.device, key[0])
        if obj is None:
            raise SettingsError(f"there is no EdgeDevice {issued.device}")
        device = Device.from_object(obj)
        await self._kube.write_status(names.DEVICE_KIND, device.name, device.namespace, issued_status(device, issued))
        self._sync_soon(key)


def _desired(known: Open, device: Device, token: JoinToken | None, now: dt.datetime) -> DesiredDevice:
    return DesiredDevice(
        name=device.name,
        is_revoked=device.spec.revoked,
        join=open_join(token, now),
        configuration=configuration(known.deployment.spec, device.spec.configuration),
    )


def _file(folder: Path, secret: Object, key: str) -> Path:
    path = folder / key
    write_secret(path, decoded(secret, key))
    return path
