"""Objects of a cluster: apply files, delete, wait."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import NotFoundError

from local_cluster.waiting import wait_until

FIELD_MANAGER = "tests"


class Objects:
    """What the holder of a kubeconfig file does with a cluster. Close it, or use it as a context."""

    def __init__(self, kubeconfig: Path, *, cache: Path | None = None) -> None:
        """`cache` is a file for what the cluster serves; without it, beside the kubeconfig file."""
        settings = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        self.client = client.ApiClient(settings)
        self.core = client.CoreV1Api(self.client)
        cache = cache or kubeconfig.with_suffix(".discovery.json")
        self._dynamic: Any = dynamic.DynamicClient(self.client, cache_file=str(cache))

    def apply(self, source: Path | str | Mapping[str, Any], *, namespace: str | None = None) -> list[dict[str, Any]]:
        """Create or change an object, or each one in a YAML file; returns them as they are now.

        Definitions of resources are waited for, so that objects of them may follow in the same file.
        """
        return [self._apply_one(manifest, namespace) for manifest in _manifests(source)]

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """One object, or nothing."""
        try:
            found = self._resource(api_version, kind).get(name=name, namespace=namespace)
        except NotFoundError:
            return None
        return dict(found.to_dict())

    def find(self, api_version: str, kind: str, namespace: str | None = None, **selectors: str) -> list[dict[str, Any]]:
        """All objects of a kind; `label_selector="a=b"` for some of them."""
        found = self._resource(api_version, kind).get(namespace=namespace, **selectors)
        return [dict(item.to_dict()) for item in found.items]

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Ask for an object's deletion; no error when there is none."""
        body = client.V1DeleteOptions(propagation_policy="Background")
        try:
            self._resource(api_version, kind).delete(name=name, namespace=namespace, body=body)
        except NotFoundError:
            return

    def patch(self, api_version: str, kind: str, name: str, namespace: str, changes: Mapping[str, Any]) -> None:
        """Change some fields of an object; a null removes one."""
        resource = self._resource(api_version, kind)
        resource.patch(name=name, namespace=namespace, body=dict(changes), content_type="application/merge-patch+json")

    def write_status(self, api_version: str, kind: str, name: str, namespace: str, status: Mapping[str, Any]) -> None:
        """Change the status of an object, as its controller would."""
        resource = self._resource(api_version, kind).subresources["status"]
        body = {"status": dict(status)}
        resource.patch(name=name, namespace=namespace, body=body, content_type="application/merge-patch+json")

    def scale(self, api_version: str, kind: str, name: str, namespace: str, *, replicas: int) -> None:
        """What `kubectl scale` does."""
        resource = self._resource(api_version, kind).subresources["scale"]
        body = {"spec": {"replicas": replicas}}
        resource.patch(name=name, namespace=namespace, body=body, content_type="application/merge-patch+json")

    def close(self) -> None:
        """Let the connections go."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _resource(self, api_version: str, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=api_version, kind=kind)

    def _apply_one(self, manifest: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
        api_version, kind = manifest["apiVersion"], manifest["kind"]
        resource = self._resource(api_version, kind)
        where = manifest["metadata"].get("namespace", namespace) if resource.namespaced else None
        applied = self._dynamic.server_side_apply(
            resource, body=dict(manifest), namespace=where, field_manager=FIELD_MANAGER, force_conflicts=True
        )
        if kind == "CustomResourceDefinition":
            name = manifest["metadata"]["name"]
            wait_until(lambda: self._is_established(name), f"{name} is established", seconds=30)
        return dict(applied.to_dict())

    def _is_established(self, name: str) -> bool:
        definition = self.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name) or {}
        conditions = (definition.get("status") or {}).get("conditions") or []
        return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def _manifests(source: Path | str | Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if isinstance(source, Mapping):
        return [source]
    return [manifest for manifest in yaml.safe_load_all(Path(source).read_text()) if manifest]
