"""What is wanted of a device: its own configuration, else its deployment's."""

from typing import Any

import pytest

from dragon_operator.devices.configuration import configuration, wanted_version
from dragon_runtime.settings.spellings import agreed
from tests.unit.operator import sample

SPEC: dict[str, Any] = {
    "aggregation": {"window": 16, "branches": 1},
    "devices": {"defaults": {"branches": 3, "logLevel": "Warning"}},
}


def test_its_own_comes_before_the_defaults_and_those_before_the_aggregation() -> None:
    made = sample.deployment(SPEC)
    found = configuration(made.spec, sample.device({"configuration": {"logLevel": "Debug"}}).spec.configuration)
    assert (found.window, found.branches, found.log_level) == (16, 3, "debug")
    assert found.aggregation == agreed(made.spec.aggregation)
    assert (found.model, found.sampling) == (None, None)


@pytest.mark.parametrize(
    ("aggregation", "own", "expected"),
    [("Auto", None, None), ("Cloud", None, "cloud"), ("Cloud", "Edge", "edge"), ("Cloud", "Auto", "auto")],
)
def test_a_placement_left_to_the_ends_pins_nothing(aggregation: str, own: str | None, expected: str | None) -> None:
    made = sample.deployment({"aggregation": {"placement": aggregation}})
    device = sample.device({"configuration": {} if own is None else {"placement": own}})
    assert configuration(made.spec, device.spec.configuration).placement == expected


def test_the_version_changes_with_what_is_wanted() -> None:
    device = sample.device()
    versions = {
        wanted_version(sample.deployment(spec), device)
        for spec in (SPEC, {**SPEC, "triton": {"replicas": 2}}, {"devices": {"heartbeatSeconds": 1}})
    }
    assert len(versions) == 2
