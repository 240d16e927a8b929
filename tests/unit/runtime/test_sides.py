"""Sides of a deployment and peers of a session."""

from dragon_core.types import Peer
from dragon_runtime.answering.sides import CLOUD, EDGE, SIDES
from dragon_runtime.settings import PlacementChoice


def test_every_peer_is_a_side() -> None:
    assert set(SIDES) == set(Peer) == {EDGE, CLOUD}


def test_the_setting_that_pins_a_side_pins_its_peer() -> None:
    assert {PlacementChoice(side).pinned: side for side in SIDES.values()} == SIDES
