"""A parameter has one meaning, one set of bounds and one spelling per border: each is walked through all of them.

The borders: the resource, the operator's spec, settings, the fleet, the core, the wire (fingerprint), Triton.
"""

import math
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from pydantic import ValidationError

from dragon_core import limits
from dragon_core.errors import OurError, SettingsError
from dragon_core.fleet import messages as fleet
from dragon_core.fleet.messages import Aggregation, Configuration, Desired, Side
from dragon_core.limits import Range
from dragon_core.messages import Fingerprint, Open, weighting_fields
from dragon_core.types import Context, CouplingKind, Cut, Sampling, Weighting, WeightingRule
from dragon_operator.devices.configuration import configuration
from dragon_operator.objects.cloud_peer import cloud_settings
from dragon_runtime.engines.triton.opening import open_tensors, request_of
from dragon_runtime.interfaces import EngineRequest
from dragon_runtime.settings import LogLevel, PlacementChoice, ProtocolSettings
from dragon_runtime.settings.spellings import (
    agreed,
    protocol_settings,
    resource_name,
    resource_value,
    setting_name,
    setting_value,
)
from edge_daemon.fleet.twin import configured
from edge_daemon.settings import EdgeSettings
from simulator.oracle import Question
from tests.unit.operator import sample

EVERYTHING: dict[str, Any] = {
    "coupling": "Independent",
    "placement": "Cloud",
    "window": 7,
    "branches": 3,
    "maxPublishedTokens": 33,
    "nucleus": 0.875,
    "numPassages": 5,
    "passagesPerContext": 4,
    "weighting": {"rule": "Contrast", "temperature": 0.25, "beta": 0.75, "gamma": 0.125},
}
"""`spec.aggregation` with no value that is a default."""

BOUNDS: dict[tuple[str, ...], Range] = {
    ("window",): limits.WINDOW,
    ("branches",): limits.BRANCHES,
    ("max_published_tokens",): limits.MAX_PUBLISHED_TOKENS,
    ("nucleus",): limits.NUCLEUS,
    ("num_passages",): limits.NUM_PASSAGES,
    ("passages_per_context",): limits.PASSAGES_PER_CONTEXT,
    ("weighting", "temperature"): limits.WEIGHTING_TEMPERATURE,
    ("weighting", "beta"): limits.WEIGHTING_BETA,
    ("weighting", "gamma"): limits.WEIGHTING_GAMMA,
}


def resource_schema(*path: str) -> dict[str, Any]:
    """A parameter of `spec.aggregation` in the CRD."""
    found: dict[str, Any] = sample.schema("dragondeployments")["properties"]["spec"]["properties"]["aggregation"]
    for name in path:
        found = found["properties"][resource_name(name)]
    return found


def leaves(of: dict[str, Any], *path: str) -> dict[tuple[str, ...], Any]:
    """Every value with its path, in the spelling of settings."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in of.items():
        here = (*path, setting_name(name))
        found |= leaves(value, *here) if isinstance(value, dict) else {here: value}
    return found


def test_a_value_of_the_resource_arrives_at_the_language_model_of_a_device() -> None:
    deployment = sample.deployment({"aggregation": EVERYTHING})
    # The operator's spec is settings, and the cloud peers' file loads to the same.
    ours = deployment.spec.aggregation
    assert {path: setting_value(v) if isinstance(v, str) else v for path, v in leaves(EVERYTHING).items()} == leaves(
        ours.model_dump(mode="json")
    )
    file = cloud_settings(deployment)
    assert ProtocolSettings(**{name: file[name] for name in ProtocolSettings.model_fields}) == ours

    # The fleet: encoded, decoded, and put over a device's own settings.
    wanted = configuration(deployment.spec, sample.device().spec.configuration)
    sent = Desired(configuration_version="0" * 16, heartbeat_seconds=1.0, configuration=wanted)
    arrived = fleet.decode(fleet.encode(sent), Desired).configuration
    assert arrived == wanted
    device = configured(EdgeSettings(device="kiosk"), arrived, None)
    assert device.model_dump(include=set(ProtocolSettings.model_fields)) == ours.model_dump()

    # The core, and what both ends compare.
    weighting = device.weighting.to_weighting()
    assert weighting == Weighting(rule=WeightingRule.CONTRAST, temperature=0.25, beta=0.75, gamma=0.125)
    assert device.cut == Cut(nucleus=0.875, max_published_tokens=33)
    fingerprint = msgspec.structs.replace(
        Question().fingerprint,
        **weighting_fields(weighting),
        max_published_tokens=device.max_published_tokens,
        nucleus=device.nucleus,
    )
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(fingerprint), type=Fingerprint)
    assert decoded == fingerprint
    assert (decoded.weighting_gamma, decoded.max_published_tokens, decoded.nucleus) == (0.125, 33, 0.875)

    # Triton, in another process.
    request = EngineRequest(
        contexts=(Context(tokens=(1, 2), relevance=0.5),),
        bare_prompt=(1,),
        weighting=weighting,
        sampling=Sampling(),
        cut=device.cut,
        max_branches=device.branches,
        max_tokens=9,
    )
    assert request_of(open_tensors(request)) == request


def test_everything_above_is_everything_there_is() -> None:
    """A parameter that is added must be walked through too, and reach every border."""
    walked = set(leaves(EVERYTHING))
    fields = {(name,) for name in ProtocolSettings.model_fields if name != "weighting"}
    assert walked == fields | {("weighting", name) for name in Weighting.__struct_fields__}
    defaults = leaves(ProtocolSettings().model_dump(mode="json"))
    assert all(
        setting_value(v) != defaults[p] if isinstance(v, str) else v != defaults[p]
        for p, v in leaves(EVERYTHING).items()
    )
    assert walked == set(leaves_of_schema())
    assert {f"weighting_{name}" for name in Weighting.__struct_fields__} <= set(Fingerprint.__struct_fields__)
    numbers = {path for path, value in leaves(EVERYTHING).items() if not isinstance(value, str)}
    assert set(BOUNDS) == numbers


def leaves_of_schema() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, child in resource_schema()["properties"].items():
        inner = child.get("properties", {})
        found += [(setting_name(name), setting_name(below)) for below in inner] or [(setting_name(name),)]
    return found


def with_value(path: tuple[str, ...], value: float) -> dict[str, Any]:
    """`spec.aggregation` with one value."""
    *outer, last = path
    found: dict[str, Any] = {resource_name(last): value}
    for name in reversed(outer):
        found = {resource_name(name): found}
    return found


@pytest.mark.parametrize("path", BOUNDS)
def test_every_border_has_the_same_bounds(path: tuple[str, ...]) -> None:
    bounds = BOUNDS[path]
    schema = resource_schema(*path)
    described = (schema["minimum"], schema["maximum"], schema.get("exclusiveMinimum", False))
    assert described == (bounds.low, bounds.high, bounds.is_above)
    is_whole = schema["type"] == "integer"
    step = 1 if is_whole else 1e-6
    lowest = bounds.low + step if bounds.is_above else bounds.low
    for value in (lowest, bounds.high):
        ours = protocol_settings(with_value(path, value))
        assert leaves(ours.model_dump(mode="json"))[path] == value
        if path[-1] in Aggregation.__struct_fields__ or path[0] == "weighting":
            assert msgspec.convert(msgspec.to_builtins(agreed(ours)), Aggregation) == agreed(ours)
    for value in (bounds.low if bounds.is_above else bounds.low - step, bounds.high + step):
        wrong = with_value(path, value)
        with pytest.raises(SettingsError, match=f"aggregation.{'.'.join(map(resource_name, path))}"):
            protocol_settings(wrong)
        with pytest.raises(SettingsError, match="spec: "):
            sample.deployment({"aggregation": wrong})
        for told in told_to_a_device(path, value):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(told, Configuration)


def told_to_a_device(path: tuple[str, ...], value: float) -> list[dict[str, Any]]:
    """Messages to a device that hold the value."""
    told = msgspec.to_builtins(agreed(ProtocolSettings()))
    if path[0] == "weighting":
        told["weighting"][path[1]] = value
    elif path[0] in told:
        told[path[0]] = value
    else:
        return [{path[0]: value}]
    return [{"aggregation": told}]


@pytest.mark.parametrize("name", ["window", "branches"])
def test_the_wire_has_them_too(name: str) -> None:
    (field,) = (each for each in msgspec.structs.fields(Open) if each.name == name)
    (meta,) = field.type.__metadata__
    assert (meta.ge, meta.le) == (BOUNDS[name,].low, BOUNDS[name,].high)


@pytest.mark.parametrize("name", ["temperature", "beta", "gamma"])
def test_triton_refuses_what_no_rule_has(name: str) -> None:
    bounds = BOUNDS["weighting", name]
    for value in (bounds.low - 1.0, bounds.high + 1.0, math.nan):
        weighting = msgspec.structs.replace(Weighting(rule=WeightingRule.EQUAL), **{name: value})
        request = EngineRequest(
            contexts=(Context(tokens=(1,), relevance=0.5),),
            bare_prompt=None,
            weighting=weighting,
            sampling=Sampling(),
            cut=Cut(),
            max_branches=1,
            max_tokens=1,
        )
        with pytest.raises(OurError, match="OPTIONS"):
            request_of(open_tensors(request))


def test_an_unknown_parameter_is_refused_at_every_border() -> None:
    with pytest.raises(SettingsError, match="delta"):
        protocol_settings({"weighting": {"delta": 1.0}})
    with pytest.raises(ValidationError):
        ProtocolSettings.model_validate({"delta": 1.0})
    with pytest.raises(msgspec.ValidationError, match="delta"):
        msgspec.convert({"delta": 1.0}, Weighting)
    request = EngineRequest(
        contexts=(Context(tokens=(1,), relevance=0.5),),
        bare_prompt=None,
        weighting=Weighting(rule=WeightingRule.EQUAL),
        sampling=Sampling(),
        cut=Cut(),
        max_branches=1,
        max_tokens=1,
    )
    tensors = dict(open_tensors(request))
    options = msgspec.json.decode(tensors["OPTIONS"].reshape(-1)[0]) | {"delta": 1.0}
    tensors["OPTIONS"] = np.array([msgspec.json.encode(options)], dtype=object)
    with pytest.raises(OurError, match="delta"):
        request_of(tensors)


# -- values of enumerations ---------------------------------------------------------------------------------------


def values(plural: str, *path: str) -> list[str]:
    """What a CRD lets in."""
    found: dict[str, Any] = sample.schema(plural)["properties"]["spec"]
    for name in path:
        found = found["properties"][name]
    return list(found["enum"])


@pytest.mark.parametrize(
    ("known", "plural", "path"),
    [
        ({kind.value for kind in CouplingKind}, "dragondeployments", ["aggregation", "coupling"]),
        ({kind.value for kind in PlacementChoice}, "dragondeployments", ["aggregation", "placement"]),
        ({kind.value for kind in WeightingRule}, "dragondeployments", ["aggregation", "weighting", "rule"]),
        ({*get_args(Side), "auto"}, "edgedevices", ["configuration", "placement"]),
        ({level.value for level in LogLevel}, "edgedevices", ["configuration", "logLevel"]),
        ({*get_args(Side), "auto"}, "dragondeployments", ["devices", "defaults", "placement"]),
        ({level.value for level in LogLevel}, "dragondeployments", ["devices", "defaults", "logLevel"]),
    ],
)
def test_every_value_of_a_resource_has_one_spelling_elsewhere(known: set[str], plural: str, path: list[str]) -> None:
    found = values(plural, *path)
    assert {setting_value(value) for value in found} == known
    assert [resource_value(setting_value(value)) for value in found] == found


@pytest.mark.parametrize("name", [*ProtocolSettings.model_fields, *Weighting.__struct_fields__])
def test_a_name_has_one_spelling_in_the_resource(name: str) -> None:
    assert setting_name(resource_name(name)) == name


def test_an_unset_value_is_left_to_the_rule() -> None:
    assert "beta" not in cloud_settings(sample.deployment())["weighting"]
    assert agreed(protocol_settings({})).weighting.beta is None
    assert weighting_fields(Weighting())["weighting_beta"] == 0.5
