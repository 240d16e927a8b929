"""Alerts, dashboard and monitors speak of series, labels and ports that exist."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dragon_operator.fleet.presence import PresenceState
from tests.chart.helm import EVERYTHING, Helm, Object, of_kind, one
from tests.chart.metric_names import known_series

PROMETHEUS = {"up"}
"""Prometheus' own series."""
FUNCTIONS = {"absent", "rate", "increase", "sum", "min", "max", "histogram_quantile", "label_values", "by"}


def series_of(expression: str) -> set[str]:
    """The series that an expression reads."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", re.sub(r'"[^"]*"', '""', expression))
    without_groups = re.sub(r"\bby \([^)]*\)", "", without_labels)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", without_groups)) - FUNCTIONS - {"le", "namespace", "deployment"}


@pytest.fixture(scope="module")
def everything(helm: Helm) -> list[Object]:
    return helm.template("--values", EVERYTHING)


def rules(objects: list[Object]) -> list[dict[str, Any]]:
    return [rule for group in one(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def dashboard(objects: list[Object]) -> dict[str, Any]:
    (found,) = [obj for obj in of_kind(objects, "ConfigMap") if obj["metadata"]["name"].endswith("-dashboard")]
    made: dict[str, Any] = json.loads(found["data"]["dragon.json"])
    return made


def expressions(objects: list[Object]) -> Iterator[str]:
    yield from (rule["expr"] for rule in rules(objects))
    board = dashboard(objects)
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_a_series_is_found_in_an_expression() -> None:
    expression = 'sum by (le, a) (rate(x_total{le="y", z=~"$n"}[5m])) / (sum(b) > 0) > 0.2'
    assert series_of(expression) == {"x_total", "b"}


def test_every_series_exists(everything: list[Object]) -> None:
    known = known_series() | PROMETHEUS
    found = list(expressions(everything))
    assert len(found) > 30
    for expression in found:
        assert series_of(expression)
        assert series_of(expression) <= known, expression
        assert expression.count("(") == expression.count(")"), expression


def test_the_cloud_counts_and_is_shown(everything: list[Object]) -> None:
    shown = {name for expression in expressions(everything) for name in series_of(expression)}
    ours = {name for name in known_series() if name.startswith(("dragon_operator_", "dragon_causal_lm_"))}
    unshown = {name for name in ours - shown if not name.endswith(("_sum", "_count", "_bucket", "_created"))}
    assert not unshown


def test_states_of_devices_exist(everything: list[Object]) -> None:
    states = set(re.findall(r'state="(\w+)"', " ".join(expressions(everything))))
    assert states
    assert states <= set(PresenceState)


def test_every_alert_says_what_to_do(everything: list[Object]) -> None:
    names = [rule["alert"] for rule in rules(everything)]
    assert len(set(names)) == len(names)
    for rule in rules(everything):
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_alerts_without_their_metrics_are_left_out(helm: Helm) -> None:
    monitors = ("--set", "metrics.serviceMonitor.enabled=false")
    made = rules(helm.template("--values", EVERYTHING, *monitors))
    assert made
    assert not any("dragon_operator" in rule["expr"] or "up{" in rule["expr"] for rule in made)


def test_panels_do_not_overlap(everything: list[Object]) -> None:
    board = dashboard(everything)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in board["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_the_monitor_finds_the_service_and_its_port(everything: list[Object]) -> None:
    monitor, service = one(everything, "ServiceMonitor")["spec"], one(everything, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    template = one(everything, "Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] in [
        port["name"] for port in template["spec"]["containers"][0]["ports"]
    ]
    pod = next(pod for pod in of_kind(everything, "Pod"))
    assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_the_whole_cluster_is_watched_by_the_pod_monitor(helm: Helm, everything: list[Object]) -> None:
    assert one(everything, "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["one", "two"]}
    whole = helm.template("--set", "metrics.podMonitor.enabled=true")
    assert one(whole, "PodMonitor")["spec"]["namespaceSelector"] == {"any": True}
