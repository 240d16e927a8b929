"""Writes the chart's values.yaml and README.md from values.schema.json, which alone holds defaults and descriptions.

`--check` writes nothing and exits with 1 when one of them is not what the schema says.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "charts" / "dragon"

INTRODUCTION = """\
# Chart `dragon`

This page is for cluster administrators who install DRAGON with Helm. It answers how to install,
upgrade, uninstall and test the chart, and what each value means.

The chart installs DRAGON's operator and its CustomResourceDefinitions. It needs Kubernetes 1.29 or
newer and Helm 3.

## Install

```sh run=cluster
helm install dragon charts/dragon --namespace dragon-system --create-namespace \\
  --values charts/dragon/values-cpu.yaml
kubectl --namespace dragon-system rollout status deployment/dragon-operator
```

| values file | for |
|---|---|
| `values-cpu.yaml` | machines without a GPU |
| `values-kind.yaml` | kind and minikube, with images that were loaded into the node |
| `values-production.yaml` | a cluster with the Prometheus operator |

Values that the schema does not know are refused. For the next steps see
[operations.md](../../docs/operations.md).

## Upgrade, uninstall, reinstall

- `helm upgrade` also updates the CustomResourceDefinitions to match the operator.
- `helm uninstall` removes the operator. The definitions stay with all resources, and everything
  that runs for the resources stays too (`crds.keep`).
- A new install under the same release name in the same namespace adopts the definitions. Under
  another name, install with `--take-ownership` (Helm 3.17 and newer) or with
  `--set crds.install=false`.

## Choose the namespaces to watch

- With `watchNamespaces: []` the operator watches the whole cluster, with a ClusterRole.
- With a list of namespaces, which must exist, the operator has a Role in each of them, and one for
  its lease in its own namespace.

`files/rbac.yaml` lists the operator's rights. The file is generated from the operator's code.

## Test

```sh not-run="needs a Ready deployment; tests/cluster/test_end_to_end.py runs it"
helm test dragon --namespace dragon-system --timeout 15m
```

`helm test` enrols its own device with the deployment `test.deployment` and asks a question at the
device's API. The deployment must be Ready and in a namespace that is watched. The test fails unless
both ends wrote the answer.

The test removes everything that it created. The pod of a failed test stays until the next test, so
that you can read its log.
"""

VALUES = """\

## Values

| value | type | default | meaning |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One value or group of values."""

    path: str
    schema: dict[str, Any]

    @property
    def is_group(self) -> bool:
        """Whether it only holds others."""
        return "default" not in self.schema


def read_schema() -> dict[str, Any]:
    """The schema of the values."""
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return schema


def values_below(schema: dict[str, Any], prefix: str = "") -> Iterator[Value]:
    """Every value and group, in the schema's order."""
    for name, field in schema["properties"].items():
        value = Value(prefix + name, field)
        yield value
        if value.is_group:
            yield from values_below(field, f"{value.path}.")


def values_page(schema: dict[str, Any]) -> str:
    """values.yaml: every default with what it means."""
    lines = ["# Written by scripts/write_chart.py from values.schema.json.", ""]
    for value in values_below(schema):
        if value.path == "global":
            continue
        *groups, name = value.path.split(".")
        indent = "  " * len(groups)
        lines.append(f"{indent}# {value.schema['description']}")
        shown = "" if value.is_group else f" {_inline(value.schema['default'])}"
        lines.append(f"{indent}{name}:{shown}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def readme(schema: dict[str, Any]) -> str:
    """README.md with a table of every value."""
    rows = [
        f"| `{value.path}` | {_kind(schema, value.schema)} | `{json.dumps(value.schema['default'])}` "
        f"| {value.schema['description']} |"
        for value in values_below(schema)
        if not value.is_group and value.path != "global"
    ]
    text = INTRODUCTION + VALUES + "\n".join(rows) + "\n"
    return text + "\nThis page is written by `scripts/write_chart.py` from `values.schema.json`.\n"


def _kind(schema: dict[str, Any], field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "$ref" in field:
        field = schema["definitions"][field["$ref"].rsplit("/", 1)[-1]]
    kind: str = field["type"]
    return {"string": "text", "array": "list", "object": "map"}.get(kind, kind)


def pages() -> dict[Path, str]:
    """Every generated file with the text it must have."""
    schema = read_schema()
    return {CHART / "values.yaml": values_page(schema), CHART / "README.md": readme(schema)}


def main() -> int:
    """Write the files, or check them."""
    is_check = "--check" in sys.argv[1:]
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if is_check:
            print(f"{path} is not what values.schema.json says: run scripts/write_chart.py", file=sys.stderr)
        else:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
