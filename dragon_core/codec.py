"""Envelopes to bytes and back: MessagePack, closed types, sizes bounded before anything is decoded."""

import msgspec

from dragon_core.distribution import pack, unpack
from dragon_core.errors import PeerError
from dragon_core.messages import Draft, Envelope
from dragon_core.types import Published

MAX_FRAME_BYTES = 1 << 20
"""A conversation at Open is the largest message; everything after it stays far below."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(envelope: Envelope) -> bytes:
    """The frame of an envelope."""
    return _encoder.encode(envelope)


def decode(frame: bytes) -> Envelope:
    """The envelope of a frame.

    Raises:
        PeerError: too large, not MessagePack, or a message that does not fit its type; names the field.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise PeerError(f"a frame of {len(frame)} bytes; at most {MAX_FRAME_BYTES} are accepted", field="frame")
    try:
        return _decoder.decode(frame)
    except msgspec.ValidationError as error:
        # What does not fit may be quoted whole, and the reason goes back to the sender: it is kept short.
        problem, at, field = str(error).rpartition(" - at `")
        problem, field = (problem, field.removesuffix("`")) if at else (field, "frame")
        raise PeerError(f"a message does not fit: {problem[:500]} (at {field})", field=field) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"a frame is not MessagePack: {error}", field="frame") from error


def draft_of(
    published: Published, *, id: int, parent: int | None, via: int | None, position: int, has_constant_weight: bool
) -> Draft:
    """The message of a frame; a constant weight was announced in Ready and is left out."""
    distribution = published.distribution
    return Draft(
        id,
        parent,
        via,
        position,
        None if has_constant_weight else published.weight_level,
        distribution.dropped,
        pack(distribution),
    )


def published_of(
    draft: Draft, *, constant_weight_level: int | None, vocabulary_size: int, max_published_tokens: int
) -> Published:
    """What a received frame publishes.

    Raises:
        PeerError: a distribution that does not fit, or a weight that is missing or should not be there.
    """
    weight_level = constant_weight_level if draft.weight_level is None else draft.weight_level
    if weight_level is None or (draft.weight_level is not None and constant_weight_level is not None):
        raise PeerError("a frame carries a weight if and only if Ready announced no constant one", field="weight_level")
    distribution = unpack(
        draft.distribution,
        dropped=draft.dropped,
        vocabulary_size=vocabulary_size,
        max_tokens=max_published_tokens,
    )
    return Published(weight_level, distribution)
