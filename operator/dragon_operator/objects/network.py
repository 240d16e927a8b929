"""Network policies: devices reach the broker, cloud peers reach Triton and Milvus, and no other client does."""

from dragon_operator.objects.metadata import metadata
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component

WORKERS = (Component.CLOUD_PEER, Component.DOCUMENTS)


def network_policies(deployment: Deployment) -> list[Object]:
    """One policy per component that listens; none when they are off."""
    if not deployment.spec.network_policy.enabled:
        return []
    workers = [{"podSelector": {"matchLabels": names.selector(deployment.name, worker)}} for worker in WORKERS]
    made = [
        _policy(deployment, Component.TRITON, [(workers, [names.TRITON_PORT]), (None, [names.TRITON_METRICS_PORT])]),
        _policy(deployment, Component.CLOUD_PEER, [(None, [names.CLOUD_PEER_PORT])]),
    ]
    if deployment.spec.milvus.managed is not None:
        rules = [(workers, [names.MILVUS_PORT]), (None, [names.MILVUS_HEALTH_PORT])]
        made.append(_policy(deployment, Component.MILVUS, rules))
    if deployment.spec.broker.managed is not None:
        made.append(_policy(deployment, Component.BROKER, [(None, [names.BROKER_PORT, names.ENROLMENT_PORT])]))
    return made


def _policy(deployment: Deployment, component: Component, rules: list[tuple[list[Object] | None, list[int]]]) -> Object:
    ingress: list[Object] = []
    for peers, ports in rules:
        rule: Object = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
        if peers is not None:
            rule["from"] = peers
        ingress.append(rule)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, deployment.child(component.value), component),
        "spec": {
            "podSelector": {"matchLabels": names.selector(deployment.name, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
