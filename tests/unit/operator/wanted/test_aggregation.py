"""Values of a resource, of files and of the wire name the same things."""

from typing import Any, get_args

import pytest

from dragon_core.fleet.messages import Side
from dragon_core.types import CouplingKind, WeightingRule
from dragon_operator.wanted.aggregation import agreed_aggregation, protocol_settings, resource_value, setting_value
from dragon_operator.wanted.spec import Aggregation, Weighting
from dragon_runtime.settings import PlacementChoice
from tests.unit.operator import sample


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
        ({"debug", "info", "warning", "error"}, "edgedevices", ["configuration", "logLevel"]),
    ],
)
def test_every_value_of_a_resource_has_one_spelling_elsewhere(known: set[str], plural: str, path: list[str]) -> None:
    for value in values(plural, *path):
        assert setting_value(value) in known
        assert resource_value(setting_value(value)) == value


def test_what_both_ends_agree_on_is_what_the_cloud_peers_are_set_to() -> None:
    spec = Aggregation(coupling="Independent", nucleus=0.9, weighting=Weighting(rule="Contrast", beta=0.75))
    settings, agreed = protocol_settings(spec), agreed_aggregation(spec)
    assert (agreed.coupling.value, agreed.nucleus) == (settings["coupling"], settings["nucleus"])
    assert agreed.weighting.rule.value == settings["weighting"]["rule"] == "contrast"
    assert (agreed.weighting.beta, agreed.weighting.gamma) == (0.75, settings["weighting"]["gamma"])


def test_an_unset_value_is_left_to_the_rule() -> None:
    assert "beta" not in protocol_settings(Aggregation())["weighting"]
    assert agreed_aggregation(Aggregation()).weighting.beta is None
