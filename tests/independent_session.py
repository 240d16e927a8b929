"""What an end does with a Resume, written from docs/protocol.md alone (sections 8 and 10): nothing of dragon_core.

Envelopes are those of `independent_peer.read_frame`. What is sent is told as a tuple: the message's name, and of a
Target, a Resume or a Failure the fields that the page decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Sent = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What an end knows. `aggregator` is who it believes fixes targets, None before placement.

    `handover_sequence` is the `sequence` of the last Handover it has sent in this session, -1 before any. `num_frames`
    are the live frames that it would send unless it aggregates.
    """

    peer: str
    term: int
    next_position: int
    aggregator: str | None
    has_sent_ready: bool
    num_frames: int
    handover_sequence: int = -1
    last_read: int | None = None
    is_open: bool = True
    is_bound: bool = True
    is_closed: bool = False

    @property
    def is_aggregating(self) -> bool:
        return self.aggregator == self.peer


@dataclass(frozen=True, slots=True)
class Followed:
    """The acts in their order, the end after them, and what it has sent."""

    acts: tuple[str, ...]
    end: End
    sent: tuple[Sent, ...]


# Section 8: an arriving envelope.


def reception(end: End, envelope: Mapping[str, Any]) -> str:
    """What becomes of an envelope with a Resume: "read", "dropped", or the field that it is refused for."""
    if end.is_closed:
        return "dropped"
    if end.peer == "opener" and envelope["term"] > end.term:
        return "term"
    if envelope["term"] < end.term or not end.is_bound:
        return "dropped"
    if not end.is_open:
        return "message"
    is_repetition = end.last_read is not None and envelope["sequence"] <= end.last_read
    return "dropped" if is_repetition else "read"


def receive(end: End, envelope: Mapping[str, Any]) -> Followed:
    """Steps 1 to 7 of an arriving envelope, for one with a Resume."""
    match reception(end, envelope):
        case "dropped":
            return Followed((), end, ())
        case "read":
            is_gap = end.last_read is not None and envelope["sequence"] > end.last_read + 1
            followed = on_resume(
                replace(end, last_read=envelope["sequence"]), envelope["message"], term=envelope["term"]
            )
            if not is_gap or followed.end.is_closed:
                return followed
            return replace(followed, sent=(*followed.sent, *resync(followed.end)))
        case field:
            return refused(end, field)


def refused(end: End, field: str) -> Followed:
    """Send Failure with the field, and close."""
    return Followed(("refuse",), replace(end, is_closed=True), (("Failure", field),))


# Section 10: resync, Resume, takeover.


def resync(end: End) -> tuple[Sent, ...]:
    ready = (("Ready",),) if end.has_sent_ready else ()
    resume = ("Resume", end.term, end.next_position, end.last_read or 0, end.aggregator)
    return (*ready, resume, *live_frames(end))


def live_frames(end: End) -> tuple[Sent, ...]:
    return () if end.is_aggregating else (("Draft",),) * min(64, end.num_frames)


def on_resume(end: End, resume: Mapping[str, Any], *, term: int) -> Followed:
    if term > end.term:
        cut = min(end.next_position, resume["term_position"])
        adopted = replace(end, term=term, aggregator="opener", next_position=cut)
        return Followed(("adopt the term",), adopted, resync(adopted))
    acts: tuple[str, ...] = ()
    sent: tuple[Sent, ...] = ()
    if resume["next_position"] < end.next_position:
        starts = range(resume["next_position"], end.next_position, 32)[:32]
        acts, sent = ("send a Target",), tuple(("Target", start) for start in starts)
    if resume["next_position"] > end.next_position and end.is_aggregating:
        return refused(end, "next_position")
    if is_takeover_due(end, resume):
        alone = replace(end, term=end.term + 1, aggregator="opener")
        return Followed((*acts, "take over"), alone, (*sent, *resync(alone)))
    if end.is_aggregating:
        return Followed(acts, end, sent)
    if end.peer == "opener":
        return Followed((*acts, "send live frames"), end, (*sent, *live_frames(end)))
    if end.has_sent_ready:
        return Followed((*acts, "resync"), end, (*sent, *resync(end)))
    return Followed(acts, end, sent)


def is_takeover_due(end: End, resume: Mapping[str, Any]) -> bool:
    """Each end believes that the other aggregates, and no Handover is on its way."""
    return (
        end.peer == "opener"
        and end.aggregator == "other"
        and resume["aggregator"] == "opener"
        and resume["last_sequence"] >= end.handover_sequence
    )
