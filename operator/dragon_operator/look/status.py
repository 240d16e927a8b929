"""The status of a DragonDeployment as data."""

import datetime as dt
from typing import Any

from dragon_operator.look.conditions import State, to_status
from dragon_operator.look.observed import Observed
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment
from dragon_operator.wanted.names import Component


def make_status(
    deployment: Deployment,
    observed: Observed,
    states: list[State],
    fleet: dict[str, Any],
    *,
    now: dt.datetime,
) -> dict[str, Any]:
    """The whole status; a null removes a field that no longer applies."""
    peers = (observed.get("Deployment", deployment.child("cloud-peer")) or {}).get("status") or {}
    labels = names.selector(deployment.name, Component.CLOUD_PEER)
    port, enrolment_port = deployment.outer_ports
    previous = deployment.status.get("conditions") or []
    model = deployment.spec.model
    return {
        "observedGeneration": deployment.generation,
        "replicas": peers.get("replicas") or 0,
        "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        "conditions": to_status(states, previous, generation=deployment.generation, now=now),
        "endpoints": {
            "broker": f"mqtts://{deployment.broker_host}:{port}",
            "enrolment": f"mqtts://{deployment.broker_host}:{enrolment_port}",
            "triton": f"{deployment.host(Component.TRITON)}:{names.TRITON_PORT}",
            "milvus": deployment.milvus_uri,
        },
        "model": {"uri": model.uri, "sha256": model.sha256},
        **fleet,
    }


def is_same(status: dict[str, Any], written: dict[str, Any]) -> bool:
    """Whether writing `status` over `written` would change nothing."""
    for key, value in status.items():
        old = written.get(key)
        if value is None:
            if old is not None:
                return False
        elif isinstance(value, dict):
            if not is_same(value, old if isinstance(old, dict) else {}):
                return False
        elif value != old:
            return False
    return True
