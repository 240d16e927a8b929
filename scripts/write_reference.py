"""Writes what follows from the code and the CRDs: pages of docs/ or parts of them, and files of the chart.

`--check` writes nothing and exits with 1 when a page is not what the code says.
"""

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from aggregation_schema import with_aggregation
from cloud_peer.settings import CloudSettings
from dragon_operator.look import rbac
from dragon_operator.settings import OperatorSettings
from dragon_runtime.answering.summary import DragonSummary, field_rows
from dragon_runtime.settings import describe
from edge_daemon.settings import EdgeSettings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CRDS = ROOT / "crds"
DEPLOYMENTS = "dragondeployments.yaml"
CHART_FILES = ROOT / "charts" / "dragon" / "files"
SUMMARY = re.compile(r"(<!-- dragon object: written by scripts/write_reference.py -->\n).*?(<!-- end -->)", re.DOTALL)

INTRODUCTION = """\
# Settings

This page is for administrators of an edge daemon, a cloud peer or the operator. It answers where
settings come from, and lists every setting with its key, environment variable, value and default.

## Sources

Both ends and the operator read their settings at start. A setting has four sources. The first
source that sets it wins:

1. command-line flags;
2. environment variables;
3. the YAML file that `--settings` or the variable `DRAGON_CONFIG` names;
4. defaults.

Dots in a key are nesting in the file: `broker.host` is `host` below `broker`. A list is `[a, b]` in
the file and `a,b` in a variable.

## Rules

- An unknown key, an unknown variable that starts with `DRAGON_`, or a bad value stops the start.
  The error names the full path of the key.
- Secrets are read from files or kept out of logs. Messages, logs and diagnoses show addresses
  without user, password, query and fragment, and no bearer or join token.
- Downloads of models and of public documents use the proxy that `HTTP_PROXY`, `HTTPS_PROXY` or
  `ALL_PROXY` names (`http://` or `https://`, no SOCKS), except from this machine. Nothing else uses
  a proxy: a device's API, the store and Triton are always reached directly.
- `weighting`, `max_published_tokens`, `nucleus` and `embedding` must be the same at both ends. A
  session between ends that differ is refused; the error names the field and both values.
- In Kubernetes, set `enableServiceLinks: false` on the pods. Otherwise the variables that
  Kubernetes injects for services whose names begin with `dragon-` are taken for unknown settings.

This page is written by `scripts/write_reference.py`.
"""

UNCHECKED = frozenset({"apiVersion", "kind", "metadata"})

RESOURCES_INTRODUCTION = """\
# Resources

This page is for platform teams who apply DRAGON's resources and for operators who watch a fleet. It
lists every field of `DragonDeployment` and `EdgeDevice` with its value, default and meaning.

Group and version are `dragon-rag.io/v1alpha1`. The API server checks every field and rule below and
fills in the defaults. [operations.md](operations.md) explains the conditions and what to do about
each. [http-api.md](http-api.md) describes the HTTP API of a device.

This page is written from `crds/` by `scripts/write_reference.py`.
"""


def pages() -> dict[Path, str]:
    """Every generated page with the text it must have."""
    settings = (
        f"{INTRODUCTION}\n## Edge daemon (`dragon-edge`)\n\n{describe(EdgeSettings)}"
        f"\n## Cloud peer (`dragon-cloud`)\n\n{describe(CloudSettings)}"
        f"\n## Operator (`dragon-operator`)\n\n{describe(OperatorSettings)}"
    )
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *field_rows(DragonSummary)])
    api = DOCS / "http-api.md"
    text, num_tables = SUMMARY.subn(lambda found: f"{found[1]}{table}\n{found[2]}", api.read_text(encoding="utf-8"))
    if num_tables != 1:
        raise SystemExit(f"{api}: expected one table between the markers, found {num_tables}")
    definitions = {path.name: path.read_text(encoding="utf-8") for path in sorted(CRDS.glob("*.yaml"))}
    definitions[DEPLOYMENTS] = with_aggregation(definitions[DEPLOYMENTS])
    rules = {
        "rules": rbac.RULES,
        "ownNamespaceRules": rbac.OWN_NAMESPACE_RULES,
    }
    return {
        DOCS / "settings.md": settings,
        api: text,
        DOCS / "api.md": describe_resources(definitions.values()),
        CHART_FILES / "rbac.yaml": yaml.safe_dump(rules, sort_keys=False),
        **{folder / name: text for folder in (CRDS, CHART_FILES / "crds") for name, text in definitions.items()},
    }


def describe_resources(definitions: Iterable[str]) -> str:
    """The whole page."""
    return RESOURCES_INTRODUCTION + "".join(_describe(yaml.safe_load(definition)) for definition in definitions)


def _describe(crd: dict[str, Any]) -> str:
    names = crd["spec"]["names"]
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    columns = ", ".join(
        column["name"] + (" (wide)" if column.get("priority") else "") for column in version["additionalPrinterColumns"]
    )
    subresources = ", ".join(sorted(version["subresources"]))
    lines = [
        f"\n## {names['kind']} (`{names['shortNames'][0]}`)\n",
        _filled(f"{schema['description']}\n"),
        _filled(f"Columns of `kubectl get {names['shortNames'][0]}`: {columns}. Subresources: {subresources}.\n"),
        "| field | value | default | meaning |",
        "|---|---|---|---|",
        *(_row(path, field, is_required=required) for path, field, required in _fields(schema)),
        "\nThe API server also checks these rules:\n",
        "| field | rule |",
        "|---|---|",
        *(f"| `{path or 'metadata'}` | {rule['message']} |" for path, rule in _rules(schema)),
    ]
    return "\n".join(lines) + "\n"


def _filled(text: str) -> str:
    """A paragraph with lines of at most 100 columns."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False) + "\n"


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, field in schema.get("properties", {}).items():
        if not path and name in UNCHECKED:
            continue
        here = f"{path}.{name}" if path else name
        yield here, field, name in schema.get("required", [])
        yield from _fields(field, here)
        if isinstance(field.get("items"), dict):
            yield from _fields(field["items"], f"{here}[]")


def _row(path: str, field: dict[str, Any], *, is_required: bool) -> str:
    default = "required" if is_required else ""
    if "default" in field and field["default"] != {}:
        default = f"`{str(field['default']).lower() if isinstance(field['default'], bool) else field['default']}`"
    return f"| `{path}` | {_value(field)} | {default} | {field['description'].replace('|', chr(92) + '|')} |"


def _value(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    bounds = [f"≥ {field['minimum']}"] if "minimum" in field else []
    if field.get("exclusiveMinimum"):
        bounds = [f"> {field['minimum']}"]
    if "maximum" in field:
        bounds.append(f"≤ {field['maximum']}")
    kind = field.get("format") if field.get("format") == "date-time" else field.get("type", "any")
    return ", ".join([str(kind), *bounds])


def _rules(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield from _rules(field, here)
        if isinstance(field.get("items"), dict):
            yield from _rules(field["items"], f"{here}[]")


def main() -> int:
    """Write the pages, or check them."""
    is_check = "--check" in sys.argv[1:]
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if is_check:
            print(f"{path} is not what the code says: run scripts/write_reference.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
