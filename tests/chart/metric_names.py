"""The series that our programs have, asked of the objects that count."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from dragon_operator.metrics import OperatorMetrics
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.hosting.metrics import CausalLmMetrics

_PARTS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


class _Family:
    """Triton's MetricFamily: keeps what was registered."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

    def __init__(self, registered: dict[str, str], *, name: str, description: str, kind: str) -> None:
        registered[name] = kind

    def Metric(self, **_: Any) -> Any:  # noqa: N802 - Triton's name
        return SimpleNamespace(set=None, increment=None, observe=None)


def _series(registry: CollectorRegistry) -> Iterable[str]:
    for family in registry.collect():
        for part in _PARTS.get(family.type, ("",)):
            yield family.name + part


def _of_triton() -> Iterable[str]:
    registered: dict[str, str] = {}

    class Family(_Family):
        def __init__(self, **given: Any) -> None:
            super().__init__(registered, **given)

    CausalLmMetrics(SimpleNamespace(MetricFamily=Family)).close()
    for name, kind in registered.items():
        yield from (name + part for part in _PARTS["histogram"]) if kind == "histogram" else (name,)


def known_series() -> set[str]:
    """All of them."""
    return {
        *_series(OperatorMetrics().registry),
        *_series(PeerMetrics("dragon_cloud").registry),
        *_series(PeerMetrics("dragon_edge").registry),
        *_of_triton(),
    }
