"""The control plane itself: the controllers work, and RBAC is on."""

import pytest
from kubernetes.client import ApiException

from local_cluster.control_plane import ControlPlane
from local_cluster.objects import Objects
from local_cluster.waiting import wait_until


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "b"}}


def test_a_new_namespace_gets_a_service_account_and_the_authority(control_plane: ControlPlane, namespace: str) -> None:
    objects = control_plane.objects
    assert objects.get("v1", "ServiceAccount", "default", namespace) is not None
    wait_until(lambda: objects.get("v1", "ConfigMap", "kube-root-ca.crt", namespace) is not None, "the authority is in")
    authority = objects.get("v1", "ConfigMap", "kube-root-ca.crt", namespace) or {}
    assert authority["data"]["ca.crt"] == control_plane.credentials.authority_file.read_text()


def test_what_an_object_owns_goes_with_it(control_plane: ControlPlane, namespace: str) -> None:
    objects = control_plane.objects
    [owner] = objects.apply(config_map("owner"), namespace=namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    objects.apply(config_map("owned", ownerReferences=[reference]), namespace=namespace)
    objects.apply(config_map("free"), namespace=namespace)
    objects.delete("v1", "ConfigMap", "owner", namespace)
    wait_until(lambda: objects.get("v1", "ConfigMap", "owned", namespace) is None, "it is collected")
    assert objects.get("v1", "ConfigMap", "free", namespace) is not None


def test_a_service_account_may_do_nothing_until_a_role_allows_it(control_plane: ControlPlane, namespace: str) -> None:
    with Objects(control_plane.kubeconfig_of(namespace, "default")) as account:
        with pytest.raises(ApiException) as refused:
            account.core.list_namespaced_config_map(namespace)
        assert refused.value.status == 403

        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}}
        control_plane.apply({**role, "rules": rules}, namespace=namespace)
        control_plane.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
            },
            namespace=namespace,
        )

        def may_list() -> bool:
            try:
                account.core.list_namespaced_config_map(namespace)
            except ApiException:
                return False
            return True

        wait_until(may_list, "the role allows it")
