"""The API server: read, apply, delete, and write a status. Plain dictionaries in and out; nothing is decided here."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiolimiter import AsyncLimiter
from kubernetes.aio import client, config, dynamic
from kubernetes.aio.client.exceptions import ApiException

from dragon_core.errors import DragonError, RetryableError, SettingsError
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Object

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 30.0
BURST_SECONDS = 0.2
"""After a quiet time so much of the rate may be written at once."""

API_VERSIONS: Mapping[str, str] = {
    names.DEPLOYMENT_KIND: names.API_VERSION,
    names.DEVICE_KIND: names.API_VERSION,
    "ConfigMap": "v1",
    "Event": "v1",
    "PersistentVolumeClaim": "v1",
    "Pod": "v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "Job": "batch/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
}
"""Every kind the operator touches."""


class KubeError(RetryableError):
    """The API server did not do what was asked."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message, retry_after_seconds=1.0)
        self.status = status


class RejectedError(DragonError):
    """The API server will not take an object as it is: trying again is of no use."""


class Kube:
    """A client of one API server. Use `connected`."""

    def __init__(
        self, api_client: client.ApiClient, dynamic_client: dynamic.DynamicClient, *, max_writes_per_second: float
    ) -> None:
        self.api_client = api_client
        self._client = dynamic_client
        burst = max(1.0, BURST_SECONDS * max_writes_per_second)
        self._writes = AsyncLimiter(burst, burst / max_writes_per_second)

    async def require_definitions(self) -> None:
        """Raises:
        SettingsError: our resources are not defined in this cluster.
        """
        try:
            for kind in (names.DEPLOYMENT_KIND, names.DEVICE_KIND):
                await self._client.resources.get(api_version=names.API_VERSION, kind=kind)
        except dynamic.exceptions.ResourceNotFoundError as error:
            raise SettingsError(
                f"{kind} of {names.API_VERSION} is not defined in this cluster: "
                "install the chart with crds.install=true, or `kubectl apply -f crds/`"
            ) from error

    async def get(self, kind: str, name: str, namespace: str) -> Object | None:
        """An object, or None when there is none."""
        resource = await self._resource(kind)
        try:
            return await self._call(self._client.get(resource, name=name, namespace=namespace), f"get {kind} {name}")
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, *, labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a kind in a namespace (None: in all) with these labels."""
        resource = await self._resource(kind)
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or None
        asked = self._client.get(resource, namespace=namespace, label_selector=selector)
        found = await self._call(asked, f"list {kind}")
        items = found.get("items") or []
        # Items of a list do not say what they are.
        return [{"apiVersion": API_VERSIONS[kind], "kind": kind, **item} for item in items]

    async def apply(self, obj: Object) -> Object:
        """Have `obj` as it is here, fields of others left alone (server-side apply, ours win).

        Raises:
            RejectedError: the API server does not accept it.
        """
        kind, name = names.reference(obj)
        resource = await self._resource(kind)
        await self._writes.acquire()
        asked = self._client.server_side_apply(
            resource,
            body=obj,
            name=name,
            namespace=obj["metadata"]["namespace"],
            field_manager=names.FIELD_MANAGER,
            force_conflicts=True,
        )
        return await self._call(asked, f"apply {kind} {name}")

    async def delete(self, kind: str, name: str, namespace: str) -> None:
        """Delete an object with what it owns; one that is gone is fine."""
        resource = await self._resource(kind)
        body = {"propagationPolicy": "Background"}
        await self._writes.acquire()
        try:
            await self._call(
                self._client.delete(resource, name=name, namespace=namespace, body=body), f"delete {kind} {name}"
            )
        except KubeError as error:
            if error.status != 404:
                raise

    async def write_status(self, kind: str, name: str, namespace: str, status: Object) -> None:
        """Have the fields of `status` as they are here; a null removes one. An object that is gone is fine."""
        resource = await self._resource(kind)
        resource = resource.subresources["status"]
        await self._writes.acquire()
        asked = self._client.patch(
            resource,
            body={"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": {"name": name}, "status": status},
            name=name,
            namespace=namespace,
            content_type="application/merge-patch+json",
        )
        try:
            await self._call(asked, f"write the status of {kind} {name}")
        except KubeError as error:
            if error.status != 404:
                raise

    async def create(self, obj: Object) -> None:
        """Create an object."""
        kind = obj["kind"]
        resource = await self._resource(kind)
        await self._writes.acquire()
        asked = self._client.create(resource, body=obj, namespace=obj["metadata"]["namespace"])
        await self._call(asked, f"create {kind}")

    async def _resource(self, kind: str) -> Any:
        return await self._call_raw(
            self._client.resources.get(api_version=API_VERSIONS[kind], kind=kind), f"discover {kind}"
        )

    async def _call(self, awaitable: Any, what: str) -> Object:
        made: Object = (await self._call_raw(awaitable, what)).to_dict()
        return made

    async def _call_raw(self, awaitable: Any, what: str) -> Any:
        try:
            return await awaitable
        except ApiException as error:
            message = f"{what}: {error.status} {_reason(error)}"
            if error.status in {400, 422}:
                raise RejectedError(message) from error
            raise KubeError(message, status=error.status) from error
        except (dynamic.exceptions.ResourceNotFoundError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(f"{what}: {error or type(error).__name__}", status=0) from error


def _reason(error: ApiException) -> str:
    return str(error.body or error.reason)[:500]


@asynccontextmanager
async def connected(kubeconfig: str | None = None, *, max_writes_per_second: float) -> AsyncGenerator[Kube, None]:
    """A client for the cluster we run in, else that of the kubeconfig. Writes beyond the rate wait.

    Raises:
        KubeError: it does not answer.
        SettingsError: nothing says where it is.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        try:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        except config.ConfigException as error:
            raise SettingsError(f"no cluster: not in a pod, and no usable kubeconfig (KUBECONFIG): {error}") from error
    async with client.ApiClient(configuration) as api:
        try:
            yield Kube(api, await dynamic.DynamicClient(api), max_writes_per_second=max_writes_per_second)
        except (aiohttp.ClientError, ApiException) as error:
            raise KubeError(f"the API server does not answer: {error}", status=0) from error
