"""messages.json: every message as fields and bytes, frames that are refused, a vocabulary's fingerprint."""

import math

import msgspec

from dragon_core import codec, distribution, messages
from dragon_core.errors import PeerError
from dragon_core.types import CouplingKind, Cut, Peer, Vocabulary, Weighting, WeightingRule
from vectors.cases import FEW, Case, fields_of, published

OPEN = messages.Open(
    version=1,
    fingerprint=messages.Fingerprint(
        vocabulary="5f1e",
        template="a0",
        embedding="all-MiniLM-L6-v2",
        embedding_dimension=384,
        embedding_revision="r1",
        **messages.weighting_fields(Weighting(rule=WeightingRule.EVIDENCE, beta=1.0)),
        max_published_tokens=64,
        nucleus=0.99,
    ),
    messages=(messages.ChatMessage("system", "Be brief."), messages.ChatMessage("user", "Wann fährt die Fähre?")),
    temperature=0.7,
    top_k=0,
    min_p=0.0,
    top_p=1.0,
    seed=2**64 - 1,
    max_tokens=512,
    stop=("\n\n",),
    coupling=CouplingKind.SHARED_NOISE,
    window=32,
    branches=2,
    placement=None,
    num_top_logprobs=None,
    deadline_seconds=600.0,
)


def sent_messages() -> dict[str, messages.AnyMessage]:
    one_token = bytes.fromhex("020100050000")
    root = messages.Draft(7, None, None, 41, None, 0, one_token)
    child = messages.Draft(8, 7, 3, 42, -717, 655, distribution.pack(published(FEW, 100, Cut())))
    likely = messages.TargetDetail(0, 0, 0, (messages.TopToken(9, -0.25), messages.TopToken(1, -2.0)))
    counted = messages.Counters(num_positions=60, num_hits=55, num_steps=70, num_wasted_steps=9, max_window_used=12)
    return {
        "open": OPEN,
        "open again, alone": msgspec.structs.replace(
            OPEN, placement=Peer.OPENER, num_top_logprobs=5, settled=(300, 70_000)
        ),
        "accepted": messages.Accepted(replica="cloud-0", prefill_deadline_seconds=30.0),
        "refused for good": messages.Refused(reason="no", field="frame"),
        "refused for now": messages.Refused(reason="16 of 16 sessions are open", retry_after_seconds=1.0),
        "ready of the opener": messages.Ready(
            num_contexts=2, constant_weight_level=6349, decode_seconds=0.014, rtt_seconds=0.3125
        ),
        "ready of the other": messages.Ready(num_contexts=1, constant_weight_level=None, decode_seconds=0.02),
        "draft on the settled path": root,
        "draft below another": child,
        "target": messages.Target(41, (3, 20), (messages.TargetDetail(732, 1450, 700), None)),
        "target with likely tokens": messages.Target(0, (9,), (likely,)),
        "move request": messages.MoveRequest(Peer.OTHER, "the link is slow"),
        "handover": messages.Handover(41, (root, child)),
        "handover without frames": messages.Handover(0, ()),
        "resume": messages.Resume(next_position=44, last_sequence=117, aggregator=Peer.OTHER),
        "resume after a takeover": messages.Resume(
            next_position=50, last_sequence=0, aggregator=Peer.OPENER, term_position=44, mix_position=62
        ),
        "finish of the other": messages.Finish(
            reason=messages.FinishReason.STOP,
            counters=counted,
            documents=(messages.DocumentShare("factbook/pt", 431),),
        ),
        "finish of the opener": messages.Finish(reason=messages.FinishReason.CANCELLED, counters=messages.Counters()),
        "failure": messages.Failure(reason="the two ends differ in nucleus", field="fingerprint.nucleus"),
        "probe": messages.Probe(),
    }


def message_case(at: int, name: str, message: messages.AnyMessage) -> Case:
    has_echo = at > 1
    envelope = messages.Envelope(
        at // 3, 57 * at, 70_000 * at, 2**32 + at if has_echo else None, 9 * at if has_echo else 0, message
    )
    return {
        "name": name,
        "message": type(message).__name__,
        "envelope": fields_of(envelope),
        "bytes": codec.encode(envelope).hex(),
    }


def with_message(*message: object) -> bytes:
    return msgspec.msgpack.encode([0, 1, 2, None, 0, message])


def changed_open(at: int, value: object) -> bytes:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(OPEN))
    return with_message(*fields[:at], value, *fields[at + 1 :])


def refused_frames() -> dict[str, bytes]:
    fingerprint = msgspec.msgpack.decode(msgspec.msgpack.encode(OPEN.fingerprint))
    return {
        "no bytes": b"",
        "an unused byte": b"\xc1",
        "cut short": with_message(12)[:-1],
        "a byte too many": with_message(12) + b"\x00",
        "no array": msgspec.msgpack.encode({"term": 0}),
        "five elements": msgspec.msgpack.encode([0, 1, 2, None, [12]]),
        "a negative term": msgspec.msgpack.encode([-1, 1, 2, None, 0, [12]]),
        "a term beyond 32 bits": msgspec.msgpack.encode([2**32, 1, 2, None, 0, [12]]),
        "a sequence as a float": msgspec.msgpack.encode([0, 1.0, 2, None, 0, [12]]),
        "an unknown tag": with_message(13),
        "a tag as text": with_message("probe"),
        "a probe with a field": with_message(12, 0),
        "a field missing": with_message(4, 1, None),
        "true for a number": with_message(4, True, None, 0.5, None),
        "a duration below 0": with_message(2, "cloud-0", -0.5),
        "a duration that is no number": with_message(2, "cloud-0", math.nan),
        "a weight beyond 10^4 nat": with_message(4, 1, 10_240_001, 0.5, None),
        "a position beyond a million": with_message(5, 0, None, None, 1_000_001, None, 0, b"\x02"),
        "a body as text": with_message(5, 0, None, None, 0, None, 0, "body"),
        "a target without tokens": with_message(6, 0, [], []),
        "a share above 1000": with_message(6, 0, [1], [[1001, 0, 0, []]]),
        "a placement of nobody": with_message(7, "edge", ""),
        "a reason that is too long": with_message(7, "other", "r" * 501),
        "a handed frame without its tag": with_message(8, 0, [[0, None, None, 0, None, 0, b"\x02"]]),
        "a document of no text": with_message(10, "stop", [0, 0, 0, 0, 0], [[1, 1]]),
        "an unknown reason": with_message(10, "done", [0, 0, 0, 0, 0], []),
        "an unknown rule": changed_open(2, [*fingerprint[:5], "best", *fingerprint[6:]]),
        "a short fingerprint": changed_open(2, fingerprint[:-1]),
        "no conversation": changed_open(3, []),
        "an unknown role": changed_open(3, [["tool", "?"]]),
        "top_p of 0": changed_open(7, 0.0),
        "an empty stop string": changed_open(10, [".", ""]),
        "a window of 0": changed_open(12, 0),
    }


def refused_frame(name: str, frame: bytes) -> Case:
    try:
        codec.decode(frame)
    except PeerError as error:
        return {"name": name, "bytes": frame.hex(), "field": error.field}
    raise SystemExit(f"the frame of {name!r} is not refused")


def build() -> Case:
    token_bytes = (b"", b"a", b" b", "é".encode(), b"")
    vocabulary = Vocabulary(token_bytes=token_bytes, special_ids=frozenset({4, 0}), end_ids=frozenset({4}))
    return {
        "about": "cases: envelopes as fields in wire order (tag first, bytes as hex) and as bytes; refused: frames "
        "with the field that is named; vocabularies: to the first field of the fingerprint",
        "cases": [message_case(at, *item) for at, item in enumerate(sent_messages().items())],
        "refused": [refused_frame(name, frame) for name, frame in refused_frames().items()],
        "vocabularies": [
            {
                "token_bytes": [token.hex() for token in token_bytes],
                "special_ids": sorted(vocabulary.special_ids),
                "end_ids": sorted(vocabulary.end_ids),
                "fingerprint": messages.vocabulary_fingerprint(vocabulary),
            }
        ],
    }
