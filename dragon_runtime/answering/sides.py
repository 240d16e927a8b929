"""Which side of a deployment each peer of a session is: the device opens, the cloud is the other end."""

from collections.abc import Mapping
from types import MappingProxyType

from dragon_core.fleet.messages import Side
from dragon_core.types import Peer

EDGE, CLOUD = Peer.OPENER, Peer.OTHER
SIDES: Mapping[Peer, Side] = MappingProxyType({EDGE: "edge", CLOUD: "cloud"})
"""In this order wherever both are told."""
