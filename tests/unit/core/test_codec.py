"""The codec: what is sent arrives, and whatever else arrives is refused by name and in little memory."""

import random
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core import codec
from dragon_core.distribution import cut
from dragon_core.errors import PeerError
from dragon_core.messages import AnyMessage, Envelope, Target, TargetDetail, TopToken
from dragon_core.types import Cut, Published
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.samples import BODY, SIZE, messages

REQUEST = PeerPair(Question(), Schedule()).open()
MESSAGES: list[AnyMessage] = [message for kind in messages(REQUEST, position=3).values() for message in kind]
ENVELOPES = [
    Envelope(number % 3, number, 17, None if number % 2 else 2**64 - 1, 3, message)
    for number, message in enumerate(MESSAGES)
]
FRAMES = [codec.encode(envelope) for envelope in ENVELOPES]
HEADER = b"\x96\x00\x00\x00\xc0\x00"
"""An envelope up to its message."""
LITTLE_BYTES = 50_000
MOST_BYTES_PER_FRAME_BYTE = 40
"""What the costliest message takes in memory for a byte on the wire: a likely token is 3 bytes there."""


def refusal(frame: bytes) -> PeerError | None:
    """A frame is decoded or refused and nothing else; a refusal says where, and is short enough to be sent back."""
    error: PeerError | None = None
    try:
        codec.decode(frame)
    except PeerError as found:
        error = found
    if error is not None:
        assert error.field == "frame" or error.field.startswith("$["), error.field
        assert len(str(error)) < 1000
        assert len(error.field) < 200
    return error


def peak_bytes(frame: bytes) -> int:
    """The most memory that decoding a frame takes at any moment."""
    tracemalloc.start()
    try:
        refusal(frame)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_encoded_is_decoded() -> None:
    assert [codec.decode(frame) for frame in FRAMES] == ENVELOPES


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda body: HEADER + body))
def test_random_bytes_are_refused(frame: bytes) -> None:
    refusal(frame)


class Damage:
    """Changes a valid frame: single bytes, whole pieces, or one value of a message that stays well-formed."""

    VALUES: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        2**32,
        2**64 - 1,
        1e308,
        float("nan"),
        "",
        "x" * 3000,
        b"",
        [],
        {},
        [[]],
    )

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def __call__(self, frame: bytes) -> bytes:
        chance = self.chance
        at, to = chance.randrange(len(frame)), chance.randrange(len(frame))
        match chance.randrange(6):
            case 0:
                return frame[:at]
            case 1:
                return frame[:at] + chance.randbytes(1) + frame[at + 1 :]
            case 2:
                return frame[:at] + frame[to:]
            case 3:
                return frame[:at] + chance.choice((b"\xc1", b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")) + frame[at:]
            case _:
                return self.with_a_value_changed(frame)

    def with_a_value_changed(self, frame: bytes) -> bytes:
        """The frame itself when it is damaged too much already."""
        try:
            return msgspec.msgpack.encode(self.changed(msgspec.msgpack.decode(frame)))
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
            return frame

    def changed(self, value: Any) -> Any:
        if isinstance(value, list) and value and self.chance.random() < 0.9:
            at = self.chance.randrange(len(value))
            return [*value[:at], self.changed(value[at]), *value[at + self.chance.choice((0, 1, 1, 1)) :]]
        return self.chance.choice(self.VALUES)


@settings(max_examples=400)
@given(st.sampled_from(FRAMES), st.randoms(use_true_random=False), st.integers(1, 3))
def test_damaged_frames_are_refused_or_still_fit(frame: bytes, chance: random.Random, num_times: int) -> None:
    damage = Damage(chance)
    for _ in range(num_times):
        frame = damage(frame) or b"\xc0"
    if refusal(frame) is None:
        envelope = codec.decode(frame)
        assert codec.decode(codec.encode(envelope)) == envelope


@pytest.mark.parametrize("frame", FRAMES[::7], ids=lambda frame: type(codec.decode(frame).message).__name__)
def test_a_frame_cut_anywhere_is_refused(frame: bytes) -> None:
    for at in range(min(len(frame), 300)):
        assert refusal(frame[:at]) is not None
    assert refusal(frame + b"\x00") is not None


NESTING = {"arrays": b"\x91", "arrays of two": b"\x92\x01", "maps": b"\x81\x01", "long arrays": b"\xdd\x00\x00\x00\x01"}


@pytest.mark.parametrize("prefix", [b"", HEADER, HEADER + b"\x93\x0b", HEADER + b"\x98\x05\x00\xc0\xc0\x00\xc0\x00"])
@pytest.mark.parametrize("nested", NESTING.values(), ids=NESTING)
def test_deep_nesting_is_refused_in_little_memory(nested: bytes, prefix: bytes) -> None:
    frame = prefix + nested * (900_000 // len(nested)) + b"\x00"
    assert refusal(frame) is not None
    assert peak_bytes(frame) < LITTLE_BYTES


LENGTHS = {
    "array16": b"\xdc\xff\xff",
    "array32": b"\xdd\xff\xff\xff\xff",
    "map32": b"\xdf\xff\xff\xff\xff",
    "str32": b"\xdb\xff\xff\xff\xff",
    "bin32": b"\xc6\xff\xff\xff\xff",
    "ext32": b"\xc9\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("declared", LENGTHS.values(), ids=LENGTHS)
def test_huge_declared_lengths_are_refused_in_little_memory(declared: bytes) -> None:
    """Put in the place of every byte of every kind of message, as if the frame went on for gigabytes."""
    for frame in {type(codec.decode(frame).message): frame for frame in FRAMES}.values():
        for at in range(min(len(frame), 120)):
            refusal(frame[:at] + declared + frame[at + 1 :])
    for prefix in (b"", HEADER, HEADER + b"\x94\x06\x00", HEADER + b"\x98\x05\x00\xc0\xc0\x00\xc0\x00"):
        assert refusal(prefix + declared) is not None
        assert peak_bytes(prefix + declared) < LITTLE_BYTES


def test_a_frame_above_the_limit_is_refused_unseen() -> None:
    frame = HEADER + b"\x94\x06\x00\xdd\x00\x1e\x84\x80" + b"\x01" * 2_000_000
    error = refusal(frame)
    assert error is not None
    assert "2000014 bytes" in str(error)
    assert peak_bytes(frame) < LITTLE_BYTES
    assert refusal(HEADER + b"\x91\x0c" + bytes(codec.MAX_FRAME_BYTES)) is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(b"\x94\x06\x00\xdd\x00\x0f\x42\x40" + b"\x01" * 1_000_000 + b"\x90", "$[5][2]", id="tokens"),
        pytest.param(b"\x94\x06\x00\x91\x01\xdd\x00\x0f\x42\x40" + b"\xc0" * 1_000_000, "$[5][3]", id="details"),
        pytest.param(b"\x93\x08\x00\xdd\x00\x0f\x42\x40" + b"\xc0" * 1_000_000, "$[5][2]", id="drafts"),
    ],
)
def test_an_array_that_is_too_long_is_refused_before_it_is_read(body: bytes, field: str) -> None:
    error = refusal(HEADER + body)
    assert error is not None
    assert error.field == field
    assert peak_bytes(HEADER + body) < LITTLE_BYTES


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(msgspec.structs.replace(REQUEST, settled=(2**32 - 1,) * 16_384), id="settled"),
        pytest.param(Target(0, (1,) * 32, (TargetDetail(0, 0, 0, (TopToken(1, -1.0),) * 20),) * 32), id="details"),
    ],
)
def test_the_largest_messages_take_a_bounded_multiple_of_their_frame(message: AnyMessage) -> None:
    frame = codec.encode(Envelope(0, 0, 0, None, 0, message))
    assert refusal(frame) is None
    assert peak_bytes(frame) < MOST_BYTES_PER_FRAME_BYTE * len(frame)


def test_a_refusal_does_not_quote_what_it_refuses_at_length() -> None:
    coupling = codec.encode(Envelope(0, 0, 0, None, 0, REQUEST)).replace(
        b"\xacshared_noise", b"\xda\xff\xff" + b"x" * 65_535
    )
    error = refusal(coupling)
    assert error is not None
    assert error.field.startswith("$[5]")


@pytest.mark.parametrize("logprob", [float("nan"), float("inf"), -float("inf"), 0.5])
def test_a_log_probability_is_a_number_at_most_zero(logprob: float) -> None:
    target = Target(0, (1,), (TargetDetail(1, 1, 1, (TopToken(1, logprob),)),))
    error = refusal(codec.encode(Envelope(0, 0, 0, None, 0, target)))
    assert error is not None
    assert error.field == "$[5][3][0][3][0][1]"


@pytest.mark.parametrize("has_constant_weight", [True, False])
def test_a_frame_publishes_what_its_sender_did(has_constant_weight: bool) -> None:
    published = Published(700, cut(np.arange(1.0, SIZE + 1) / sum(range(SIZE + 1)), Cut(max_published_tokens=16)))
    draft = codec.draft_of(published, id=3, parent=2, via=1, position=9, has_constant_weight=has_constant_weight)
    assert (draft.weight_level is None) == has_constant_weight
    received = codec.published_of(
        draft,
        constant_weight_level=700 if has_constant_weight else None,
        vocabulary_size=SIZE,
        max_published_tokens=16,
    )
    assert received == published


@pytest.mark.parametrize(("in_ready", "in_draft"), [(None, None), (700, 700), (700, 0)])
def test_a_weight_stands_in_ready_or_in_every_frame(in_ready: int | None, in_draft: int | None) -> None:
    draft = msgspec.structs.replace(
        codec.draft_of(
            Published(0, cut(np.full(SIZE, 1 / SIZE), Cut(max_published_tokens=16))),
            id=0,
            parent=None,
            via=None,
            position=0,
            has_constant_weight=False,
        ),
        weight_level=in_draft,
    )
    assert draft.distribution == BODY
    with pytest.raises(PeerError) as refused:
        codec.published_of(draft, constant_weight_level=in_ready, vocabulary_size=SIZE, max_published_tokens=16)
    assert refused.value.field == "weight_level"
