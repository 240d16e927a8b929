"""The operator's rights in both ways of watching: the operator's own list, and nothing beside it."""

from typing import Any

from dragon_operator.look import rbac
from tests.chart.helm import NAMESPACE, Helm, of_kind, one

ROLES = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def require_bound(binding: dict[str, Any], role: dict[str, Any], account: str = "dragon-operator") -> None:
    assert binding["roleRef"]["kind"] == role["kind"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]


def test_the_whole_cluster(helm: Helm) -> None:
    objects = helm.template()
    role = one(objects, "ClusterRole")
    assert role["rules"] == rbac.RULES
    require_bound(one(objects, "ClusterRoleBinding"), role)
    own = one(objects, "Role")
    assert own["metadata"]["namespace"] == NAMESPACE
    assert own["rules"] == rbac.OWN_NAMESPACE_RULES
    require_bound(one(objects, "RoleBinding"), own)


def test_some_namespaces(helm: Helm) -> None:
    objects = helm.template("--set", f"watchNamespaces={{one,{NAMESPACE}}}")
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role for role in of_kind(objects, "Role")}
    assert {key: role["rules"] for key, role in roles.items()} == {
        ("one", "dragon-operator"): rbac.RULES,
        (NAMESPACE, "dragon-operator"): rbac.RULES,
        (NAMESPACE, "dragon-operator-own"): rbac.OWN_NAMESPACE_RULES,
    }
    bindings = of_kind(objects, "RoleBinding")
    assert len(bindings) == len(roles)
    for binding in bindings:
        require_bound(binding, roles[binding["metadata"]["namespace"], binding["metadata"]["name"]])


def test_rights_and_account_of_somebody_else(helm: Helm) -> None:
    objects = helm.template("--set", "rbac.create=false", "--set", "serviceAccount.create=false")
    assert not any(of_kind(objects, kind) for kind in (*ROLES, "ServiceAccount"))
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_an_account_with_a_name(helm: Helm) -> None:
    objects = helm.template("--set", "serviceAccount.name=its-name")
    assert one(objects, "ServiceAccount")["metadata"]["name"] == "its-name"
    require_bound(one(objects, "ClusterRoleBinding"), one(objects, "ClusterRole"), "its-name")
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "its-name"
