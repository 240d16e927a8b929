"""Writes statuses of EdgeDevices, part by part and only where something changes. What they say is `device`'s."""

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

from dragon_core.errors import SettingsError
from dragon_operator.devices.device import Device, issued_status, merged, refused_status
from dragon_operator.fleet import Issued
from dragon_operator.kube import Kube
from dragon_operator.look.status import is_same
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Object


class DeviceStatuses:
    """Parts are written one at a time, each into the status as it is then."""

    def __init__(self, kube: Kube, metrics: OperatorMetrics) -> None:
        self._kube, self._metrics = kube, metrics
        self._writing = asyncio.Lock()

    async def tell(self, device: Device, part: dict[str, Any]) -> None:
        """Write a part of a status, unless the device says so already."""
        if not is_same(merged(device, part), device.status):
            await self.write(device.namespace, device.name, lambda _: part)

    async def write(self, namespace: str, name: str, part: Callable[[Device], dict[str, Any]]) -> None:
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

    async def refuse(self, obj: Object, message: str, now: dt.datetime) -> None:
        """Tell an EdgeDevice whose spec does not fit."""
        status = refused_status(obj, message, now)
        if not is_same(status, obj.get("status") or {}):
            metadata = obj["metadata"]
            await self._kube.write_status(names.DEVICE_KIND, metadata["name"], metadata["namespace"], status)

    async def record(self, namespace: str, issued: Issued) -> None:
        """Write down a certificate before the device gets it: what is lost on the way can be refused later.

        Raises:
            SettingsError: there is no such device.
        """
        obj = await self._kube.get(names.DEVICE_KIND, issued.device, namespace)
        if obj is None:
            raise SettingsError(f"there is no EdgeDevice {issued.device}")
        device = Device.from_object(obj)
        await self._kube.write_status(names.DEVICE_KIND, device.name, device.namespace, issued_status(device, issued))
