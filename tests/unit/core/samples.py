"""A few messages of every type, plain ones and ones at their limits. All of them pass the codec; few make sense."""

from collections import defaultdict

import msgspec
import numpy as np

from dragon_core.distribution import cut, pack
from dragon_core.messages import (
    Accepted,
    AnyMessage,
    Counters,
    DocumentShare,
    Draft,
    Failure,
    Finish,
    FinishReason,
    Handover,
    MoveRequest,
    Open,
    Probe,
    Ready,
    Refused,
    Resume,
    Target,
    TargetDetail,
    TopToken,
)
from dragon_core.types import Cut, Peer
from simulator.toy_engine import TOY_VOCABULARY

SIZE = len(TOY_VOCABULARY)
FAR = 1_000_000
LARGEST = 2**32 - 1
HEAVIEST = 10_240_000
BODY = pack(cut(np.full(SIZE, 1 / SIZE), Cut(max_published_tokens=16)))
DETAIL = TargetDetail(500, 700, 9, (TopToken(3, -0.5), TopToken(4, -1.5)))
DAY = 86_400.0


def messages(request: Open, *, position: int) -> dict[type, list[AnyMessage]]:
    """By type, for a session of `request` that has settled `position` tokens."""
    found: dict[type, list[AnyMessage]] = defaultdict(list)
    for message in (*opens(request), *answers_to_open(), *frames(position), *targets(position), *others(position)):
        found[type(message)].append(message)
    return found


def opens(request: Open) -> list[AnyMessage]:
    other_model = msgspec.structs.replace(request.fingerprint, vocabulary="another")
    changes: list[dict[str, object]] = [
        {},
        {"version": 2},
        {"fingerprint": other_model},
        {"settled": (1, 2, 3)},
        {"settled": (SIZE,)},
        {"settled": (LARGEST, 1)},
        {"settled": (0, 0, 0)},
        {"settled": (1,) * (request.max_tokens + 5)},
        {"placement": Peer.OPENER},
        {"placement": Peer.OTHER, "window": 256, "branches": 16},
        {"deadline_seconds": 0.0},
        {"temperature": 1e-300, "top_p": 1e-300, "min_p": 1.0, "top_k": LARGEST},
    ]
    return [msgspec.structs.replace(request, **change) for change in changes]


def answers_to_open() -> list[AnyMessage]:
    found: list[AnyMessage] = [
        Accepted(replica="r0", prefill_deadline_seconds=30.0),
        Accepted(replica="r0", prefill_deadline_seconds=0.0),
        Refused(reason="no"),
        Refused(reason="later", field="slots", retry_after_seconds=0.0),
        Refused(reason="much later", retry_after_seconds=DAY),
    ]
    found += [
        Ready(
            num_contexts=LARGEST,
            constant_weight_level=weight,
            decode_seconds=decode_seconds,
            rtt_seconds=rtt_seconds,
        )
        for weight, decode_seconds, rtt_seconds in (
            (None, 0.01, 0.1),
            (1000, 0.01, None),
            (0, 0.0, 0.0),
            (HEAVIEST, 1e-300, DAY),
            (-HEAVIEST, DAY, DAY),
        )
    ]
    return found


def frames(position: int) -> list[AnyMessage]:
    plain = Draft(0, None, None, position, None, 0, BODY)
    return [
        plain,
        Draft(1, 0, 3, position + 1, None, 65_535, BODY),
        Draft(2, None, None, position, -HEAVIEST, 0, BODY),
        Draft(2, None, None, position, HEAVIEST, 0, BODY),
        Draft(3, None, 5, 0, None, 0, BODY),
        Draft(4, None, None, position + 1, None, 0, BODY),
        Draft(5, 0, None, position + 1, None, 0, BODY),
        Draft(LARGEST, LARGEST, LARGEST, FAR, None, 0, BODY),
        Draft(6, None, None, position, None, 0, b""),
        Draft(7, None, None, position, None, 0, b"\x04\xff\xff" + bytes(16_000)),
        Draft(8, 8, 3, position + 1, None, 0, BODY),
    ]


def targets(position: int) -> list[AnyMessage]:
    return [
        Target(position, (3,), (None,)),
        Target(position, (3, 4, 5), (DETAIL, None, DETAIL)),
        Target(position, (SIZE,), (None,)),
        Target(position, (LARGEST,), (None,)),
        Target(position, (3,), (TargetDetail(1000, 2**31, 65_535, (TopToken(SIZE, -0.5),)),)),
        Target(position, (3,), ()),
        Target(0, (3,) * 32, (None,) * 32),
        Target(position, (0, 0, 0), (None, None, None)),
        Target(position + 1, (3,), (None,)),
        Target(FAR, (3,), (None,)),
    ]


def others(position: int) -> list[AnyMessage]:
    plain = Draft(0, None, None, position, None, 0, BODY)
    found: list[AnyMessage] = [MoveRequest(peer, "a reason") for peer in Peer]
    found += [Handover(at, drafts) for at in (0, position, position + 1, FAR) for drafts in ((), (plain,))]
    found.append(Handover(position, (Draft(7, None, None, position, None, 0, b"?"),)))
    found.append(
        Handover(position, tuple(Draft(n, n - 1 if n else None, 3, position + n, None, 0, BODY) for n in range(32)))
    )
    found += [
        Resume(
            next_position=at,
            last_sequence=2**64 - 1,
            aggregator=aggregator,
            term_position=term_position,
            mix_position=at,
        )
        for at in (0, position, FAR)
        for aggregator in (None, *Peer)
        for term_position in (0, FAR)
    ]
    documents = (DocumentShare("d" * 200, 1000),) * 64
    counters = Counters(num_positions=0, num_hits=LARGEST, num_steps=LARGEST)
    found += [Finish(reason=reason, counters=counters, documents=documents) for reason in FinishReason]
    found += [Failure(reason="r" * 2000, field="f" * 200), Failure(reason=""), Probe()]
    return found
