"""Keeps EdgeDevices true: each has its join token, and its broker knows it with its rights and configuration."""

import datetime as dt
import logging
import secrets as random
from collections.abc import Callable, Mapping

import msgspec

from dragon_core.errors import DragonError, SettingsError
from dragon_core.fleet.join_token import JoinToken
from dragon_operator.devices.broker_connections import BrokerConnection, BrokerConnections
from dragon_operator.devices.configuration import configuration
from dragon_operator.devices.device import Device, enrolment_status, missing_deployment_status
from dragon_operator.devices.device_statuses import DeviceStatuses
from dragon_operator.devices.join_tokens import join_secret_object, join_token, known_join_token, open_join
from dragon_operator.fleet import DesiredDevice
from dragon_operator.kube import Kube
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Key

logger = logging.getLogger(__name__)

SECRET_BYTES = 32


class DeviceSync:
    """Brings the devices of one deployment after the other to what is wanted of them."""

    def __init__(
        self,
        kube: Kube,
        connections: BrokerConnections,
        statuses: DeviceStatuses,
        *,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._kube, self._connections, self._statuses, self._clock = kube, connections, statuses, clock

    async def sync(self, key: Key) -> None:
        """Have the broker know exactly the devices there are, each with its token, rights and configuration.

        Raises:
            RetryableError: the API server or the broker does not answer.
        """
        namespace, name = key
        devices, refused = await self._devices(key)
        known = self._connections.get(key)
        if known is None:
            if await self._kube.get(names.DEPLOYMENT_KIND, name, namespace) is None:
                message = f"there is no DragonDeployment {name} in this namespace: create it, or recreate the device"
                for device in devices:
                    await self._statuses.tell(device, missing_deployment_status(device, message, self._clock()))
            return
        tokens = {device.name: await self._token(known, device) for device in devices}
        self._connections.revoke(key, frozenset(number for device in devices for number in device.revoked_numbers()))
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
            await self._statuses.tell(device, enrolment_status(device, tokens[device.name], now, problem=said))
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
                await self._statuses.refuse(obj, str(error), self._clock())
        return found, refused

    async def _token(self, known: BrokerConnection, device: Device) -> JoinToken | None:
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


def _desired(known: BrokerConnection, device: Device, token: JoinToken | None, now: dt.datetime) -> DesiredDevice:
    return DesiredDevice(
        name=device.name,
        is_revoked=device.spec.revoked,
        join=open_join(token, now),
        configuration=configuration(known.deployment.spec, device.spec.configuration),
    )
