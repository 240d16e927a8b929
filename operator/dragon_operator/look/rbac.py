"""The operator's rights: the one list from which the chart's roles are generated. A test acts as its account."""

from dragon_operator.wanted import names

READ = ["get", "list", "watch"]
MANAGE = [*READ, "create", "patch", "delete"]

Rule = dict[str, list[str]]

RULES: list[Rule] = [
    {"apiGroups": [names.GROUP], "resources": ["dragondeployments", "edgedevices"], "verbs": READ},
    {
        "apiGroups": [names.GROUP],
        "resources": ["dragondeployments/status", "edgedevices/status"],
        "verbs": ["patch"],
    },
    # Setting blockOwnerDeletion in a child's owner reference asks for this.
    {
        "apiGroups": [names.GROUP],
        "resources": ["dragondeployments/finalizers", "edgedevices/finalizers"],
        "verbs": ["update"],
    },
    {
        "apiGroups": [""],
        "resources": ["configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"],
        "verbs": MANAGE,
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": READ},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": MANAGE},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": MANAGE},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": MANAGE},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": MANAGE},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": MANAGE},
]
"""In every namespace that is watched."""

OWN_NAMESPACE_RULES: list[Rule] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]
"""In the operator's own namespace: only one operator works at a time."""
