"""The operator: watches resources and reconciles them, as the only one that does."""

import asyncio
import datetime as dt
import logging
import time
from contextlib import AsyncExitStack
from typing import Any, cast

import kopf

from dragon_core.errors import OurError
from dragon_operator.devices.broker_connections import BrokerConnections
from dragon_operator.devices.device_statuses import DeviceStatuses
from dragon_operator.devices.device_sync import DeviceSync
from dragon_operator.handlers import Watched, make_registry, make_settings
from dragon_operator.kube import Kube, connected
from dragon_operator.lease import leading, own_namespace
from dragon_operator.look.reconcile import Reconciler
from dragon_operator.metrics import OperatorMetrics
from dragon_operator.settings import OperatorSettings
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Key
from dragon_operator.work import WorkQueue
from dragon_runtime.process.health_server import serving
from dragon_runtime.process.tasks import end_tasks

logger = logging.getLogger(__name__)

NUM_WORKERS = 4
REST_SECONDS = 1.0
"""A roll-out makes events by the dozen, and each look applies every object."""
LOOK_LATER_SECONDS = 5.0
QUIET_RESYNCS = 5
"""Resyncs without a finished round after which the operator counts as stuck."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Operator:
    """All of the operator but its election."""

    def __init__(self, kube: Kube, settings: OperatorSettings) -> None:
        self._settings = settings
        self.metrics = OperatorMetrics()
        self._watched = Watched()
        self._looks: WorkQueue[Key] = WorkQueue(self._look, num_workers=NUM_WORKERS, rest_seconds=REST_SECONDS)
        self._syncs: WorkQueue[Key] = WorkQueue(self._sync, num_workers=NUM_WORKERS, rest_seconds=REST_SECONDS)
        statuses = DeviceStatuses(kube, self.metrics)
        self._connections = BrokerConnections(
            settings,
            statuses,
            self.metrics,
            clock=_now,
            sync_soon=self._syncs.add,
            look_later=lambda key: self._looks.add_later(key, LOOK_LATER_SECONDS),
        )
        self._devices = DeviceSync(kube, self._connections, statuses, clock=_now)
        self._reconciler = Reconciler(kube, settings, self._connections, self.metrics, clock=_now)
        self._last_resync = time.monotonic()
        self._is_working = False

    def problem(self) -> str | None:
        """Why the operator should be restarted: it no longer makes progress. Can be read from any thread."""
        seconds = time.monotonic() - self._last_resync
        if not self._is_working or seconds < QUIET_RESYNCS * self._settings.resync_seconds:
            return None
        return f"stuck: nothing was reconciled for {seconds:.0f} s"

    async def run(self, stopped: asyncio.Event) -> None:
        """Work until `stopped` is set; what is being done is finished first."""
        self._is_working, self._last_resync = True, time.monotonic()
        registry = make_registry(self._watched, look=self._looks.add, sync=self._syncs.add)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._connections.close_all)
            await stack.enter_async_context(self._looks.running())
            await stack.enter_async_context(self._syncs.running())
            stack.push_async_callback(end_tasks, [asyncio.create_task(self._resync(), name="resync")])
            await kopf.operator(
                registry=registry,
                settings=make_settings(),
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                # By itself it would ask for the name of a user who has none in a container.
                identity=cast("Any", names.FIELD_MANAGER),
                standalone=True,
                stop_flag=stopped,
            )

    async def _resync(self) -> None:
        """Look at everything again: drift that no event told of, certificates that end, tokens that expire."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            for key in tuple(self._watched.deployments):
                self._looks.add(key)
                self._syncs.add(key)
            self._last_resync = time.monotonic()
            self.metrics.resources.labels(names.DEPLOYMENT_KIND).set(len(self._watched.deployments))
            self.metrics.resources.labels(names.DEVICE_KIND).set(len(self._watched.generations))

    async def _look(self, key: Key) -> None:
        with self.metrics.reconciling(names.DEPLOYMENT_KIND):
            await self._reconciler.reconcile(*key)

    async def _sync(self, key: Key) -> None:
        with self.metrics.reconciling(names.DEVICE_KIND):
            await self._devices.sync(key)


async def run(settings: OperatorSettings, stopped: asyncio.Event) -> None:
    """Run the operator until `stopped` is set or another one leads.

    Raises:
        DragonError: the API server does not answer, or the lease was lost.
    """
    # It tells of every event that a handler has seen.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kubernetes.aio").setLevel(logging.INFO)
    async with connected(max_writes_per_second=settings.max_writes_per_second) as kube:
        await kube.require_definitions()
        operator = Operator(kube, settings)
        async with AsyncExitStack() as stack:
            stack.enter_context(
                serving(settings.metrics.host, settings.metrics.port, operator.metrics.registry, operator.problem)
            )
            lost = await stack.enter_async_context(leading(kube, own_namespace(), stopped))
            logger.info("watching %s", ", ".join(settings.namespaces) or "the whole cluster")
            over = asyncio.Event()
            endings = [asyncio.create_task(_pass_on(event, over), name="ending") for event in (stopped, lost)]
            stack.push_async_callback(end_tasks, endings)
            await operator.run(over)
            if lost.is_set() and not stopped.is_set():
                raise OurError("the lease was lost: another operator may lead now")


async def _pass_on(event: asyncio.Event, over: asyncio.Event) -> None:
    await event.wait()
    over.set()
