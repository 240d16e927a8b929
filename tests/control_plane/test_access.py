"""Who may do what: the operator with the rights of its roles alone, in both modes, and one operator at a time."""

from pathlib import Path
from typing import Any

from dragon_operator.look import rbac
from dragon_operator.wanted import names
from local_cluster.control_plane import ControlPlane
from local_cluster.waiting import wait_until
from tests.control_plane.deployments import condition, resource
from tests.control_plane.running_operator import RunningOperator

RBAC_VERSION = "rbac.authorization.k8s.io/v1"
ACCOUNT = "dragon-operator"


def grant(control_plane: ControlPlane, kind: str, name: str, namespace: str, rules: list[rbac.Rule], own: str) -> None:
    """A role (or cluster role) with rules, bound to the operator's account in namespace `own`."""
    is_cluster = kind == "ClusterRole"
    where = {} if is_cluster else {"namespace": namespace}
    control_plane.apply(
        {"apiVersion": RBAC_VERSION, "kind": kind, "metadata": {"name": name, **where}, "rules": list(rules)}
    )
    control_plane.apply(
        {
            "apiVersion": RBAC_VERSION,
            "kind": f"{kind}Binding",
            "metadata": {"name": name, **where},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": own}],
        }
    )


def account(control_plane: ControlPlane, namespace: str) -> Path:
    control_plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}}
    )
    grant(control_plane, "Role", "dragon-operator-own", namespace, rbac.OWN_NAMESPACE_RULES, namespace)
    return control_plane.kubeconfig_of(namespace, ACCOUNT)


def has_status(control_plane: ControlPlane, namespace: str) -> bool:
    return bool(condition(control_plane.objects, namespace, "Ready"))


def exercise(control_plane: ControlPlane, namespace: str) -> None:
    """Every kind of object, made and taken away."""
    full: dict[str, Any] = {
        "triton": {"cache": {"size": "1Gi"}},
        "cloudPeer": {"autoscaling": {"maxReplicas": 3}},
        "documents": {"sources": [{"uri": "pvc://handbook/"}]},
    }
    control_plane.apply(resource(namespace, **full))
    wait_until(lambda: has_status(control_plane, namespace), "a status")
    control_plane.apply(resource(namespace, cloudPeer={}, networkPolicy={"enabled": False}, documents={"sources": []}))
    gone = ("autoscaling/v2", "HorizontalPodAutoscaler", "helpdesk-cloud-peer", namespace)
    wait_until(lambda: control_plane.objects.get(*gone) is None, "the autoscaler is gone")
    policy = ("networking.k8s.io/v1", "NetworkPolicy", "helpdesk-broker", namespace)
    wait_until(lambda: control_plane.objects.get(*policy) is None, "the policy is gone")


def test_one_namespace_with_a_role_alone(
    control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = account(control_plane, namespace)
    grant(control_plane, "Role", "dragon-operator", namespace, rbac.RULES, namespace)
    control_plane.apply(resource("default", "elsewhere"))
    running = RunningOperator(tmp_path, kubeconfig, namespaces=[namespace], lease_namespace=namespace)
    with running:
        exercise(control_plane, namespace)
    assert 'User "system:serviceaccount' not in running.log, running.log
    elsewhere = control_plane.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "elsewhere", "default") or {}
    control_plane.objects.delete(names.API_VERSION, names.DEPLOYMENT_KIND, "elsewhere", "default")
    assert "status" not in elsewhere


def test_the_whole_cluster_with_a_cluster_role(
    control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = account(control_plane, namespace)
    grant(control_plane, "ClusterRole", f"dragon-operator-{namespace}", "", rbac.RULES, namespace)
    running = RunningOperator(tmp_path, kubeconfig, namespaces=[], lease_namespace=namespace)
    with running:
        exercise(control_plane, namespace)
    assert 'User "system:serviceaccount' not in running.log, running.log


def test_every_right_is_needed(control_plane: ControlPlane, installed: None) -> None:
    """Each kind in the list is one that the operator handles, and none of them can be written wholesale."""
    from dragon_operator.kube import API_VERSIONS

    kinds = {kind.lower() for kind in API_VERSIONS}
    plurals = {"networkpolicies": "networkpolicy"}
    for rule in rbac.RULES:
        assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
        for name in rule["resources"]:
            bare = name.partition("/")[0]
            assert plurals.get(bare, bare.removesuffix("s")) in kinds, name


def test_one_operator_at_a_time(control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path) -> None:
    first = RunningOperator(tmp_path / "a", control_plane.kubeconfig, namespaces=[namespace], lease_namespace=namespace)
    second = RunningOperator(
        tmp_path / "b", control_plane.kubeconfig, namespaces=[namespace], lease_namespace=namespace
    )
    with first:
        second.start()
        control_plane.apply(resource(namespace))
        wait_until(lambda: has_status(control_plane, namespace), "the first one works")
        assert "watching" not in second.log
        first.kill()
        second.wait_until_leading()
        control_plane.objects.delete("v1", "Service", "helpdesk-triton", namespace)
        service = ("v1", "Service", "helpdesk-triton", namespace)
        wait_until(lambda: control_plane.objects.get(*service) is not None, "the second one goes on")
        lease = ("coordination.k8s.io/v1", "Lease", "dragon-operator", namespace)
        assert control_plane.objects.get(*lease)["spec"]["holderIdentity"]  # type: ignore[index]
        assert second.stop() == 0
        assert "holderIdentity" not in control_plane.objects.get(*lease)["spec"]  # type: ignore[index]
