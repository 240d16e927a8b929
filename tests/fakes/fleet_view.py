"""A fleet without devices."""

from typing import Any

from dragon_operator.credentials.plan import Credentials
from dragon_operator.look.conditions import State
from dragon_operator.wanted.deployment import Deployment


class NoFleet:
    """Implements `FleetView`; remembers which deployments it was opened for."""

    def __init__(self) -> None:
        self.opened: set[tuple[str, str]] = set()

    async def open(self, deployment: Deployment, credentials: Credentials) -> None:
        self.opened.add((deployment.namespace, deployment.name))

    async def close(self, namespace: str, name: str) -> None:
        self.opened.discard((namespace, name))

    def revoked(self, namespace: str, name: str) -> frozenset[str]:
        return frozenset()

    def summary(self, namespace: str, name: str) -> tuple[dict[str, Any], list[State]]:
        return {}, []
