"""The CRDs say the same as the code that reads them."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dragon_operator.wanted.spec import DeploymentSpec, DeviceSpec
from dragon_runtime.settings import ProtocolSettings
from tests.unit.operator import sample

SPECS = [("dragondeployments", DeploymentSpec), ("edgedevices", DeviceSpec)]


def described(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from described(child, f"{path}.{name}")
        if "items" in child:
            yield from described(child["items"], f"{path}.{name}[]")


@pytest.mark.parametrize("plural", ["dragondeployments", "edgedevices"])
def test_every_field_is_described(plural: str) -> None:
    without = [
        path for path, child in described(sample.schema(plural)) if not child.get("description") and path != ".metadata"
    ]
    assert without == []


def compare(struct: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Differences between a struct and a schema, in fields and defaults."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    found = [f"{path}: {sorted(fields)} and {sorted(schema['properties'])}"] * (
        set(fields) != set(schema["properties"])
    )
    for name, field in fields.items():
        child = schema["properties"].get(name, {})
        kinds = [kind for kind in getattr(field.type, "__args__", (field.type,)) if isinstance(kind, type)]
        nested = [kind for kind in kinds if issubclass(kind, msgspec.Struct)]
        if nested:
            inner = child.get("items", child) if child.get("type") == "array" else child
            found += compare(nested[0], inner, f"{path}.{name}")
        elif child.get("type") == "array" or "additionalProperties" in child or field.type is ProtocolSettings:
            continue  # the aggregation's are walked through in tests/unit/test_parameters.py
        elif field.default is not msgspec.NODEFAULT and field.default != child.get("default"):
            found.append(f"{path}.{name}: {field.default} and {child.get('default')}")
    return found


@pytest.mark.parametrize(("plural", "struct"), SPECS)
def test_fields_and_defaults_are_those_of_the_code(plural: str, struct: Any) -> None:
    assert compare(struct, sample.schema(plural)["properties"]["spec"], "spec") == []


def test_every_rule_has_a_message() -> None:
    def rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
        yield from schema.get("x-kubernetes-validations", [])
        for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
            yield from rules(child)

    found = [rule for plural, _ in SPECS for rule in rules(sample.schema(plural))]
    assert len(found) >= 15
    assert all(len(rule["message"]) > 20 for rule in found)
