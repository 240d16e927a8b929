"""Strict JSON schemas for kubeconform without a download: of Kubernetes, our resources and the Prometheus operator.

Those of Kubernetes come in the package `kubernetes-validate`; ours are made from crds/. No unknown field passes.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import CRDS

VERSION = "1.36.0"
LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"
DEFINITIONS = "_definitions.json"
Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}


def _closed(*required: str, **properties: Schema) -> Schema:
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "required": list(required)} if required else made


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


_SELECTOR = _closed(
    matchLabels=_TEXTS,
    matchExpressions=_list(_closed("key", "operator", key=_TEXT, operator=_TEXT, values=_list(_TEXT))),
)
_NAMESPACES = _closed(any={"type": "boolean"}, matchNames=_list(_TEXT))
_ENDPOINTS = _list(
    _closed(
        "port",
        port=_TEXT,
        interval=_TEXT,
        honorLabels={"type": "boolean"},
        relabelings=_list(_closed("targetLabel", sourceLabels=_list(_TEXT), targetLabel=_TEXT)),
    )
)
_RULE = _closed("alert", "expr", alert=_TEXT, expr=_TEXT, labels=_TEXTS, annotations=_TEXTS, **{"for": _TEXT})
MONITORING: dict[str, Schema] = {
    "ServiceMonitor": _closed(
        "selector", "endpoints", selector=_SELECTOR, namespaceSelector=_NAMESPACES, endpoints=_ENDPOINTS
    ),
    "PodMonitor": _closed(
        "selector",
        "podMetricsEndpoints",
        selector=_SELECTOR,
        namespaceSelector=_NAMESPACES,
        podMetricsEndpoints=_ENDPOINTS,
    ),
    "PrometheusRule": _closed("groups", groups=_list(_closed("name", "rules", name=_TEXT, rules=_list(_RULE)))),
}
"""Of the Prometheus operator's API: the fields that the chart uses."""


def write_schemas(folder: Path) -> None:
    """All of them, as kubeconform looks for them at LOCATION."""
    found = importlib.util.find_spec("kubernetes_validate")
    assert found is not None, "the package kubernetes-validate is not installed"
    assert found.origin is not None
    source = Path(found.origin).parent / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    here = (folder / DEFINITIONS).as_uri()
    for path in source.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if path.name == DEFINITIONS:
            whole = json.loads(text)
            whole["$id"] = here
            (folder / path.name).write_text(json.dumps(whole), encoding="utf-8")
        elif f'"$ref": "/api/{DEFINITIONS}' in text:
            schema = json.loads(text.replace(f'"/api/{DEFINITIONS}', f'"{here}'))
            schema.pop("$id", None)
            (folder / path.name).write_text(json.dumps(schema), encoding="utf-8")
    for crd in CRDS:
        _write_custom(folder, yaml.safe_load(crd.read_text(encoding="utf-8")))
    metadata = {"$ref": f"{here}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    for kind, spec in MONITORING.items():
        known: dict[str, Schema] = {
            "apiVersion": {"enum": ["monitoring.coreos.com/v1"]},
            "kind": {"enum": [kind]},
            "metadata": metadata,
        }
        schema = _closed("apiVersion", "kind", "metadata", "spec", spec=spec, **known)
        (folder / f"{kind.lower()}-monitoring-v1.json").write_text(json.dumps(schema), encoding="utf-8")


def _write_custom(folder: Path, crd: dict[str, Any]) -> None:
    kind, group = crd["spec"]["names"]["kind"], crd["spec"]["group"]
    for version in crd["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        name = f"{kind.lower()}-{group.split('.')[0]}-{version['name']}.json"
        (folder / name).write_text(json.dumps(schema), encoding="utf-8")


def strict(schema: Schema) -> Schema:
    """A schema of a CRD as JSON schema (draft 4, kubeconform's default) that accepts no unknown field."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {name: strict(field) for name, field in schema["properties"].items()}
        made.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made
