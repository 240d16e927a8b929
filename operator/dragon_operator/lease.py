"""Only one operator works at a time: the one that holds a Lease."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection import electionconfig, leaderelection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from dragon_core.errors import OurError, SettingsError
from dragon_operator.kube import Kube
from dragon_runtime.process.tasks import end_tasks

logger = logging.getLogger(__name__)

LEASE = "dragon-operator"
LEASE_SECONDS = 15
RENEW_SECONDS = 10
RETRY_SECONDS = 2
RELEASE_SECONDS = 5
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NAMESPACE_VARIABLE = "POD_NAMESPACE"


class _Lock(LeaseLock):  # type: ignore[misc]  # the library is not typed
    """The library's, whose own `create` is refused by its client: it asks for pretty output with a truth value."""

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except ApiException:
            return False  # somebody else was faster, or the API server is away: it is tried again
        return True

    async def release(self) -> None:
        """Let the next operator begin at once. Does nothing when one has begun already, or the API server is away."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                lease = await self.api_instance.read_namespaced_lease(self.name, self.namespace)
                if lease.spec.holder_identity == self.identity:
                    lease.spec.holder_identity = None
                    await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, aiohttp.ClientError, OSError) as error:
            logger.info("the lease %s/%s runs out by itself: %s", self.namespace, self.name, error)


def own_namespace() -> str:
    """The namespace the operator runs in.

    Raises:
        SettingsError: it runs in none and the environment does not name one.
    """
    if found := os.environ.get(NAMESPACE_VARIABLE):
        return found
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    raise SettingsError(f"the operator runs outside a cluster: set {NAMESPACE_VARIABLE} to a namespace for its lease")


@asynccontextmanager
async def leading(kube: Kube, namespace: str, stopped: asyncio.Event) -> AsyncGenerator[asyncio.Event, None]:
    """Be the only operator inside the scope; waits for its turn. What it yields is set when that is over.

    Raises:
        OurError: told to stop while waiting, or the lease cannot be used at all.
    """
    leads, lost = asyncio.Event(), asyncio.Event()

    async def on_started() -> None:
        leads.set()
        await lost.wait()

    async def on_stopped() -> None:
        lost.set()

    lock = _Lock(LEASE, namespace, f"{socket.gethostname()}-{os.getpid()}", kube.api_client)
    config = electionconfig.Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, on_started, on_stopped)
    election = asyncio.create_task(leaderelection.LeaderElection(config).run(), name="leader election")
    # However it ends: the library renews no more.
    election.add_done_callback(lambda _: lost.set())
    waiting = [asyncio.create_task(event.wait()) for event in (leads, stopped)]
    try:
        await asyncio.wait([election, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if election.done() and (error := election.exception()) is not None:
            raise OurError(f"the lease {namespace}/{LEASE} cannot be taken: {error!r}") from error
        if not leads.is_set():
            raise OurError("stopped while another operator leads")
        yield lost
    finally:
        lost.set()
        await end_tasks([election, *waiting])
        if leads.is_set():
            await lock.release()
