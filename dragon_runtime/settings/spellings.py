"""How a parameter is spelled at each border: the resource, the fleet, Triton. Translations only.

In Python a parameter has one name, that of its setting. The resource writes names as `maxPublishedTokens` and values of
enumerations as `SharedNoise`. Triton's options are flat: a parameter of the weighting rule has a prefix there where
another option has its name. In a fingerprint each has one: `weighting_fields` of `dragon_core.messages`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from dragon_core.errors import SettingsError
from dragon_core.fleet.messages import Aggregation
from dragon_core.types import Weighting
from dragon_runtime.settings.groups import ProtocolSettings, WeightingSettings

_TRITON_PREFIX = "weighting_"
_PREFIXED_IN_TRITON = ("temperature",)
"""Sampling has a temperature too."""


def setting_value(value: str) -> str:
    """A value of an enumeration as settings and the wire spell it: `SharedNoise` is `shared_noise`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", value).lower()


def resource_value(value: str) -> str:
    """The other way round."""
    return "".join(part.capitalize() for part in value.split("_"))


def setting_name(name: str) -> str:
    """The setting of a field of the resource: `maxPublishedTokens` is `max_published_tokens`."""
    return setting_value(name)


def resource_name(name: str) -> str:
    """The other way round."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def protocol_settings(aggregation: Mapping[str, Any]) -> ProtocolSettings:
    """`spec.aggregation` of a DragonDeployment as settings.

    Raises:
        SettingsError: it does not fit; names the field as the resource spells it.
    """
    try:
        return ProtocolSettings.model_validate(_as_settings(aggregation))
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(resource_name(str(part)) for part in problem["loc"])
        raise SettingsError(f"aggregation.{path}: {problem['msg']}") from error


def _as_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    def translated(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _as_settings(value)
        return setting_value(value) if isinstance(value, str) else value

    return {setting_name(name): translated(value) for name, value in fields.items()}


def agreed(protocol: ProtocolSettings) -> Aggregation:
    """What both ends must have alike, as devices are told of it."""
    values = protocol.model_dump(include=set(Aggregation.__struct_fields__))
    return msgspec.convert(values, Aggregation)


def changes_of(aggregation: Aggregation) -> dict[str, Any]:
    """What a device is told, as changes of its own settings."""
    changes = msgspec.structs.asdict(aggregation)
    changes["weighting"] = WeightingSettings(**msgspec.structs.asdict(aggregation.weighting))
    return changes


def triton_weighting(weighting: Weighting) -> dict[str, Any]:
    """A weighting rule among the options of a session on Triton (docs/triton.md)."""
    fields = msgspec.structs.asdict(weighting) | {"beta": weighting.effective_beta}
    return {_triton_name(name): value for name, value in fields.items()}


def take_triton_weighting(options: dict[str, Any]) -> Weighting:
    """Take the weighting rule out of the options of a session; what is left are the others.

    Raises:
        msgspec.ValidationError: a parameter is missing, or out of its bounds.
    """
    try:
        fields = {name: options.pop(_triton_name(name)) for name in Weighting.__struct_fields__}
    except KeyError as error:
        raise msgspec.ValidationError(f"there is no {error.args[0]}") from error
    if fields["beta"] is None:
        raise msgspec.ValidationError("beta is null: a client sends the rule's own where none is set")
    return msgspec.convert(fields, Weighting)


def _triton_name(name: str) -> str:
    return _TRITON_PREFIX + name if name in _PREFIXED_IN_TRITON else name
