"""An operator that is killed at any point of a reconcile: the next one comes to the same end."""

import secrets
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragon_operator.kube import Kube
from dragon_operator.look.observed import CHILD_KINDS
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Object
from local_cluster.control_plane import ControlPlane
from tests.control_plane.deployments import WRITES_PER_SECOND, reconciler, resource

FULL: dict[str, Any] = {
    "triton": {"cache": {"size": "1Gi"}},
    "cloudPeer": {"autoscaling": {"maxReplicas": 3}},
    "documents": {"sources": [{"uri": "pvc://handbook/"}]},
}
CHANGED: dict[str, Any] = {"model": {"uri": "https://models.example/n.gguf", "sha256": "1" * 64}, "cloudPeer": {}}
MADE_BY_CHANCE = frozenset({"tls.crt", "tls.key", "ca.crt", "crl.pem", "password", "token"})


class KilledError(BaseException):
    """The process ends here."""


class MortalKube(Kube):
    """An API server whose client dies after `lives` changes; the last one may or may not have arrived."""

    def __init__(self, kube: Kube, *, lives: int, is_last_done: bool) -> None:
        super().__init__(kube.api_client, kube._client, max_writes_per_second=WRITES_PER_SECOND)
        self._lives, self._is_last_done = lives, is_last_done

    async def apply(self, obj: Object) -> Object:
        self._die_before()
        made = await super().apply(obj)
        self._die_after()
        return made

    async def delete(self, kind: str, name: str, namespace: str) -> None:
        self._die_before()
        await super().delete(kind, name, namespace)
        self._die_after()

    async def write_status(self, kind: str, name: str, namespace: str, status: Object) -> None:
        self._die_before()
        await super().write_status(kind, name, namespace, status)
        self._die_after()

    def _die_before(self) -> None:
        self._lives -= 1
        if self._lives <= 0 and not self._is_last_done:
            raise KilledError

    def _die_after(self) -> None:
        if self._lives <= 0:
            raise KilledError


async def end_state(kube: Kube, namespace: str) -> dict[tuple[str, str], Any]:
    """What is there, without what differs from cluster to cluster or is random."""
    found = {}
    for kind in CHILD_KINDS:
        for obj in await kube.list(kind, namespace, labels={names.MANAGED_BY: names.FIELD_MANAGER}):
            metadata = obj["metadata"]
            spec = obj.get("spec") or {}
            template = spec.get("template") or {}
            annotations = template.get("metadata", {}).get("annotations") or {}
            for key in (names.CHECKSUM, f"{names.CHECKSUM}-certificates"):
                annotations.pop(key, None)
            settings_of = {k: v for k, v in (obj.get("data") or {}).items() if k not in MADE_BY_CHANCE}
            found[kind, metadata["name"]] = {
                "labels": metadata["labels"],
                "owners": [owner["kind"] for owner in metadata.get("ownerReferences") or []],
                "template": str(template).replace(namespace, "NAMESPACE"),
                "settings": str(settings_of).replace(namespace, "NAMESPACE"),
                "keys": sorted(obj.get("data") or {}),
            }
    return found


async def run_undisturbed(kube: Kube, control_plane: ControlPlane, namespace: str) -> dict[tuple[str, str], Any]:
    worker = reconciler(kube)
    for spec in (FULL, CHANGED):
        control_plane.apply(resource(namespace, **spec))
        await worker.reconcile(namespace, "helpdesk")
    return await end_state(kube, namespace)


def new_namespace(control_plane: ControlPlane) -> str:
    name = f"killed-{secrets.token_hex(4)}"
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


async def test_killed_anywhere_the_end_is_the_same(control_plane: ControlPlane, kube: Kube) -> None:
    namespace = new_namespace(control_plane)
    wanted = await run_undisturbed(kube, control_plane, namespace)
    control_plane.objects.delete("v1", "Namespace", namespace)
    assert len(wanted) > 20

    lives = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=3)
    deaths: list[int] = []

    async def disturbed(before: list[tuple[int, bool]], after: list[tuple[int, bool]]) -> None:
        namespace = new_namespace(control_plane)
        for spec, kills in ((FULL, before), (CHANGED, after)):
            control_plane.apply(resource(namespace, **spec))
            for count, is_last_done in kills:
                mortal = MortalKube(kube, lives=count, is_last_done=is_last_done)
                try:
                    await reconciler(mortal).reconcile(namespace, "helpdesk")
                except KilledError:
                    deaths.append(count)
            await reconciler(kube).reconcile(namespace, "helpdesk")
        assert await end_state(kube, namespace) == wanted
        control_plane.objects.delete("v1", "Namespace", namespace)

    cases: list[tuple[list[tuple[int, bool]], list[tuple[int, bool]]]] = []

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(before=lives, after=lives)
    def choose(before: list[tuple[int, bool]], after: list[tuple[int, bool]]) -> None:
        cases.append((before, after))

    choose()
    for before, after in cases:
        await disturbed(before, after)
    assert len(deaths) >= len(cases)


async def test_credentials_are_made_once(control_plane: ControlPlane, kube: Kube) -> None:
    namespace = new_namespace(control_plane)
    control_plane.apply(resource(namespace))
    await reconciler(kube).reconcile(namespace, "helpdesk")
    before = {obj["metadata"]["name"]: obj["data"] for obj in await kube.list("Secret", namespace)}
    for _ in range(3):
        await reconciler(kube).reconcile(namespace, "helpdesk")
    after = {obj["metadata"]["name"]: obj["data"] for obj in await kube.list("Secret", namespace)}
    assert after == before
    assert len(after) >= 8


async def test_a_reconcile_without_news_changes_no_object(control_plane: ControlPlane, kube: Kube) -> None:
    namespace = new_namespace(control_plane)
    control_plane.apply(resource(namespace, **FULL))
    await reconciler(kube).reconcile(namespace, "helpdesk")
    await reconciler(kube).reconcile(namespace, "helpdesk")

    async def versions() -> dict[tuple[str, str], str]:
        labels = {names.MANAGED_BY: names.FIELD_MANAGER}
        return {
            names.reference(obj): obj["metadata"]["generation"]
            for kind in ("Deployment", "StatefulSet", "NetworkPolicy")
            for obj in await kube.list(kind, namespace, labels=labels)
        }

    before = await versions()
    await reconciler(kube).reconcile(namespace, "helpdesk")
    assert await versions() == before
