"""docs/operations.md speaks of every reason and condition that there is."""

import re
from pathlib import Path

from dragon_operator.devices.device import DeviceCondition, DeviceReason
from dragon_operator.look.conditions import Condition, Reason

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
NAMED = frozenset(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))


def test_every_condition_and_reason_is_explained() -> None:
    known = {str(value) for kind in (Condition, Reason, DeviceCondition, DeviceReason) for value in kind}
    assert known - NAMED == set()
