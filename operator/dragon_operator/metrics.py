"""The operator's metrics, all of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class OperatorMetrics:
    """Counters of the work done, and of the fleet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "dragon_operator_reconcile_total",
            "Reconciles of a resource.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "dragon_operator_reconcile_duration_seconds",
            "Duration of a reconcile.",
            ["kind"],
            registry=self.registry,
        )
        self.errors = Counter(
            "dragon_operator_errors_total", "Failures by reason.", ["kind", "reason"], registry=self.registry
        )
        self.resources = Gauge("dragon_operator_resources", "Resources that exist.", ["kind"], registry=self.registry)
        self.status_writes = Counter(
            "dragon_operator_status_writes_total", "Writes of a status.", ["kind"], registry=self.registry
        )
        self.devices = Gauge(
            "dragon_edge_devices",
            "Devices by presence.",
            ["namespace", "deployment", "state"],
            registry=self.registry,
        )

    @contextmanager
    def reconciling(self, kind: str) -> Iterator[None]:
        """Count and time one reconcile inside the scope."""
        try:
            with self.reconcile_seconds.labels(kind).time():
                yield
        except Exception as error:
            self.reconciles.labels(kind, "failed").inc()
            self.errors.labels(kind, type(error).__name__).inc()
            raise
        self.reconciles.labels(kind, "done").inc()
