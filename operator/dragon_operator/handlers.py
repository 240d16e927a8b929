"""Watches with kopf: every event names a deployment to reconcile. Nothing is decided here.

`operator` runs what is made here; no other file knows kopf. No handler needs a finalizer: removing the operator first
strands nothing.
"""

from collections.abc import Callable
from typing import Any

import kopf

from dragon_operator.kube import API_VERSIONS
from dragon_operator.look.observed import CHILD_KINDS
from dragon_operator.wanted import names
from dragon_operator.wanted.names import Key


class Watched:
    """Which deployments and devices there are, as the watches told."""

    def __init__(self) -> None:
        self.deployments: set[Key] = set()
        self.generations: dict[Key, tuple[str, int]] = {}
        self.num_events = 0


def make_registry(
    watched: Watched, *, look: Callable[[Key], None], sync: Callable[[Key], None]
) -> kopf.OperatorRegistry:
    """Handlers that call `look` with a deployment to reconcile, and `sync` with one whose devices changed."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_log_in)

    @kopf.on.event(names.GROUP, names.VERSION, "dragondeployments", registry=registry)
    async def deployment(event: Any, namespace: Any, name: str, **_: Any) -> None:
        watched.num_events += 1
        if event["type"] == "DELETED":
            watched.deployments.discard((namespace, name))
        else:
            watched.deployments.add((namespace, name))
        look((namespace, name))

    @kopf.on.event(names.GROUP, names.VERSION, "edgedevices", registry=registry)
    async def device(event: Any, namespace: Any, name: str, body: Any, **_: Any) -> None:
        """A status alone is no news: we wrote it."""
        watched.num_events += 1
        now = (body["metadata"]["uid"], body["metadata"]["generation"])
        if event["type"] == "DELETED":
            watched.generations.pop((namespace, name), None)
        elif watched.generations.get((namespace, name)) == now:
            return
        else:
            watched.generations[namespace, name] = now
        sync((namespace, body["spec"].get("deployment", "")))

    async def child(namespace: Any, labels: Any, **_: Any) -> None:
        watched.num_events += 1
        if (instance := labels.get(names.INSTANCE)) is not None:
            look((namespace, instance))

    for kind in (*CHILD_KINDS, "Pod"):
        labels = {names.MANAGED_BY: names.FIELD_MANAGER}
        group, _, version = API_VERSIONS[kind].rpartition("/")
        kopf.on.event(group=group, version=version, kind=kind, labels=labels, registry=registry)(child)
    return registry


def _log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """As what the pod is, else as the kubeconfig says."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def make_settings() -> kopf.OperatorSettings:
    """How kopf watches: a watch that hangs is noticed, and nothing is written to resources by kopf itself."""
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.posting.enabled = False
    # Kinds and namespaces are those we start with: nothing cluster-wide has to be read for it.
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    return settings
