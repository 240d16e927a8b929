"""`spec.aggregation` as both ends are told it, and how values of enumerations are spelt in resources and elsewhere."""

import re
from typing import Any

import msgspec

from dragon_core.fleet import messages
from dragon_operator.wanted.spec import Aggregation


def setting_value(value: str) -> str:
    """A value of an enumeration as files and the wire spell it: `SharedNoise` is `shared_noise`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", value).lower()


def resource_value(value: str) -> str:
    """The inverse of `setting_value`: a value as a resource spells it."""
    return "".join(word.capitalize() for word in value.split("_"))


def protocol_settings(aggregation: Aggregation) -> dict[str, Any]:
    """`spec.aggregation` as settings of an end: names and values in their own spelling."""
    values = msgspec.structs.asdict(aggregation)
    weighting = msgspec.structs.asdict(aggregation.weighting)
    values["coupling"] = setting_value(values["coupling"])
    values["placement"] = setting_value(values["placement"])
    weighting["rule"] = setting_value(weighting["rule"])
    values["weighting"] = {name: value for name, value in weighting.items() if value is not None}
    return values


def agreed_aggregation(aggregation: Aggregation) -> messages.Aggregation:
    """The part of `spec.aggregation` that must be the same at both ends, as a device is told it."""
    values = protocol_settings(aggregation)
    agreed = {name: values[name] for name in messages.Aggregation.__struct_fields__}
    return msgspec.convert(agreed, messages.Aggregation)
