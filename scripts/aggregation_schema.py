"""`spec.aggregation` of the DragonDeployment, from the settings: names, values, bounds, defaults and descriptions."""

import re
import textwrap
from typing import Any

import yaml

from dragon_runtime.settings import ProtocolSettings
from dragon_runtime.settings.spellings import resource_name, resource_value

MARKED = re.compile(
    r"(?P<begin>(?P<indent> +)# Written by scripts/write_reference.py from the settings\.\n).*?(?P<end> +# end\n)",
    re.DOTALL,
)
WEIGHTING = """\
weighting:
  description: {description}
  type: object
  default: {{}}
  x-kubernetes-validations:
    - rule: "!has(self.beta) || self.rule == 'Evidence' || self.rule == 'Contrast'"
      message: beta applies to the rules Evidence and Contrast only; remove beta, or set one of these rules
  properties:
"""


def with_aggregation(definition: str) -> str:
    """The text of the definition with its properties of `spec.aggregation` between their marks.

    Raises:
        SystemExit: the marks are not there exactly once.
    """
    lines = _lines()
    text, num_found = MARKED.subn(
        lambda found: found["begin"] + textwrap.indent(lines, found["indent"]) + found["end"], definition
    )
    if num_found != 1:
        raise SystemExit(f"expected the marks of spec.aggregation once, found {num_found}")
    return text


def _lines() -> str:
    schema = ProtocolSettings.model_json_schema()
    nested = schema["$defs"]["WeightingSettings"]["properties"]
    text = ""
    for name, field in schema["properties"].items():
        if name == "weighting":
            text += WEIGHTING.format(description=field["description"])
            for below, inner in nested.items():
                text += textwrap.indent(_line(below, inner, schema["$defs"]), "    ")
        else:
            text += _line(name, field, schema["$defs"])
    return text


def _line(name: str, field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """One property on one line, as a structural schema of Kubernetes has it."""
    shape = next((option for option in field.get("anyOf", []) if option.get("type") != "null"), field) | field
    reference = shape.get("$ref", "").rpartition("/")[2]
    shape = definitions.get(reference, {}) | shape
    made: dict[str, Any] = {"description": field["description"], "type": shape["type"]}
    if "enum" in shape:
        made["enum"] = [resource_value(value) for value in shape["enum"]]
        made["default"] = resource_value(field["default"])
    else:
        if "exclusiveMinimum" in shape:
            made |= {"minimum": shape["exclusiveMinimum"], "exclusiveMinimum": True}
        made |= {key: shape[key] for key in ("minimum", "maximum") if key in shape}
        if field.get("default") is not None:
            made["default"] = field["default"]
    whole = {key: int(value) if key in ("minimum", "maximum") else value for key, value in made.items()}
    text: str = yaml.safe_dump({resource_name(name): whole}, default_flow_style=True, sort_keys=False, width=10**6)
    return text.strip().removeprefix("{").removesuffix("}") + "\n"
