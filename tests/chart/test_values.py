"""The schema of the values: closed, with a reason for what it refuses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, EVERYTHING, Helm

MAPS = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity"}
"""Objects that are Helm's or Kubernetes' own."""


def read_schema() -> dict[str, Any]:
    """The schema of the values."""
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return schema


def groups_below(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the schema that is no map of texts."""
    if schema.get("type") == "object" and "properties" in schema:
        yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from groups_below(field, f"{path}.{name}".lstrip("."))
    if isinstance(schema.get("items"), dict):
        yield from groups_below(schema["items"], f"{path}[]")


def test_every_object_is_closed() -> None:
    schema = read_schema()
    for whole in (schema, *schema["definitions"].values()):
        for path, group in groups_below(whole):
            assert group["additionalProperties"] is False, path


def test_every_value_is_described() -> None:
    schema = read_schema()
    for path, group in groups_below(schema):
        for name, field in group["properties"].items():
            assert field.get("description", "").endswith((".", ")")), f"{path}.{name}"


def test_everything_is_really_everything() -> None:
    everything = yaml.safe_load(EVERYTHING.read_text())

    def require(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        for name, field in schema["properties"].items():
            if name in MAPS:
                continue
            assert name in values, f"{path}{name}"
            if "properties" in field and "default" not in field:
                require(field, values[name], f"{path}{name}.")

    require(read_schema(), everything, "")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("replicas=2", "replicas"),
        ("image.name=x", "name"),
        ("images.cloud=x", "cloud"),
        ("settings.log.color=true", "color"),
        ("metrics.serviceMonitor.namespace=x", "namespace"),
        ("test.model.path=x", "path"),
        ("resources.claims=x", "claims"),
        ("serviceAccount.labels.a=b", "labels"),
        ("tolerations[0].effects=NoSchedule", "effects"),
        ("affinity.nodes=x", "nodes"),
        ("watchNamespaces=support", "watchNamespaces"),
        ("watchNamespaces={Support}", "watchNamespaces"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=sha256:12", "digest"),
        ("image.tag=a b", "tag"),
        ("settings.resyncSeconds=0", "resyncSeconds"),
        ("settings.maxStatusWritesPerSecond=0", "maxStatusWritesPerSecond"),
        ("settings.log.level=verbose", "level"),
        ("resources.requests.memory=much", "memory"),
        ("metrics.podMonitor.interval=often", "interval"),
        ("prometheusRule.enabled=yes", "enabled"),
        ("crds.install=maybe", "install"),
        ("test.deployment=Help", "deployment"),
        ("test.timeoutSeconds=1", "timeoutSeconds"),
        ("test.model.sha256=12", "sha256"),
        ("nameOverride=-x", "nameOverride"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(helm: Helm, setting: str, complaint: str) -> None:
    said = helm.refusal("template", "dragon", CHART, "--set", setting)
    assert "values don't meet the specifications of the schema" in said
    assert complaint in said


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (
            ["metrics.serviceMonitor.enabled=true", "metrics.service.enabled=false"],
            "set metrics.service.enabled to true",
        ),
        (["watchNamespaces={support}", "test.namespace=other"], "set test.enabled to false"),
        (["test.model.url=https://models.example.com/m.gguf"], "set url and sha256, or neither"),
    ],
)
def test_values_that_do_not_go_together_are_refused(helm: Helm, settings: list[str], advice: str) -> None:
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    assert advice in helm.refusal("template", "dragon", CHART, *arguments)
