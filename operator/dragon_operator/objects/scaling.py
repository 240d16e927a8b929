"""Number of pods of a component: from the spec, or written by an autoscaler."""

from dragon_operator.objects.metadata import metadata
from dragon_operator.wanted.deployment import Deployment, Object
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.spec import ScaledPods


def replicas(deployment: Deployment, pods: ScaledPods) -> Object:
    """The field of a workload; left out where an autoscaler writes it."""
    if deployment.spec.suspend:
        return {"replicas": 0}
    return {"replicas": pods.replicas} if pods.autoscaling is None else {}


def autoscalers(deployment: Deployment, component: Component, pods: ScaledPods) -> list[Object]:
    """The autoscaler of a component; none unless asked for, or while suspended."""
    autoscaling = pods.autoscaling
    if autoscaling is None or deployment.spec.suspend:
        return []
    name = deployment.child(component.value)
    target = {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_percent}
    return [
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata(deployment, name, component),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": autoscaling.min_replicas,
                "maxReplicas": autoscaling.max_replicas,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }
    ]
