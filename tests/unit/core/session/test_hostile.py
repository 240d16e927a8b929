"""Frames nobody should send: whatever arrives, the sessions go on or end; nothing else happens."""

import random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragon_core.types import Peer
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule

EXTREMES = (0, 1, 2, 17, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**63, -1)
MAX_FRAMES = 5000


class Hostile:
    """Changes, drops, repeats and invents frames of one peer now and then."""

    def __init__(self, chance: random.Random, sender: Peer, rate: float) -> None:
        self._chance, self._sender, self._rate = chance, sender, rate
        self._seen: list[bytes] = []

    def __call__(self, peer: Peer, frame: bytes) -> list[bytes]:
        if peer is not self._sender or self._chance.random() > self._rate:
            return [frame]
        self._seen.append(frame)
        match self._chance.randrange(6):
            case 0:
                return [self._chance.randbytes(self._chance.randrange(200))]
            case 1:
                return [frame[: self._chance.randrange(len(frame))]]
            case 2:
                at = self._chance.randrange(len(frame))
                return [frame[:at] + self._chance.randbytes(1) + frame[at + 1 :]]
            case 3:
                return [frame, self._chance.choice(self._seen)]
            case _:
                return [msgspec.msgpack.encode(self._changed(msgspec.msgpack.decode(frame)))]

    def _changed(self, value: Any) -> Any:
        """The same shape with one leaf changed: frames like these pass the decoder."""
        if isinstance(value, list) and value:
            at = self._chance.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, int) and not isinstance(value, bool):
            return self._chance.choice((value + 1, max(0, value - 1), *EXTREMES))
        if isinstance(value, bytes):
            return self._chance.randbytes(len(value))
        return self._chance.choice((None, value))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    chance=st.randoms(use_true_random=False),
    sender=st.sampled_from(Peer),
    rate=st.sampled_from((0.02, 0.1, 0.5)),
    branches=st.sampled_from((1, 2)),
)
def test_a_hostile_peer_gets_a_session_closed_and_nothing_else(
    chance: random.Random, sender: Peer, rate: float, branches: int
) -> None:
    pair = PeerPair(Question(max_tokens=12), Schedule(branches=branches))
    pair.damage = Hostile(chance, sender, rate)
    tokens = pair.run()
    assert len(tokens) <= 12
    assert Peer.OPENER in pair.closed, "the user's end must come to an end"
    assert pair.num_frames < MAX_FRAMES


def test_a_replica_that_gives_another_s_name_is_never_heard_and_the_opener_goes_on_alone() -> None:
    def rename(peer: Peer, frame: bytes) -> list[bytes]:
        return [frame.replace(b"r0", b"00") if peer is Peer.OTHER else frame]

    pair = PeerPair(Question(max_tokens=12), Schedule(branches=1))
    pair.damage = rename
    assert len(pair.run()) == 12
    assert Peer.OPENER in pair.closed
    assert all(emit.is_degraded for emit in pair.emitted)
