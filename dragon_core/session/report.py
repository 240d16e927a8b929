"""What an end knows of an answer when it is over."""

from dragon_core.messages import Counters, DocumentShare
from dragon_core.session.answer import SHARE_UNIT, Answer
from dragon_core.session.contact import Contact
from dragon_core.session.events import Report
from dragon_core.session.settling import Settling
from dragon_core.types import Peer


def report_of(
    us: Peer, answer: Answer, settling: Settling, contact: Contact, *, counters: Counters, term: int
) -> Report:
    """The report of the end `us`, whose own counts are `counters`."""
    theirs = contact.finish.counters if contact.finish is not None else Counters()
    counted = {us: counters, us.opposite: theirs}
    mean, largest = answer.dropped_mass()
    return Report(
        num_tokens=answer.next_position,
        num_degraded=len(answer.degraded),
        num_mixed=answer.num_mixed,
        hit_rate={p: c.num_hits / c.num_positions if c.num_positions else None for p, c in counted.items()},
        num_steps={p: c.num_steps for p, c in counted.items()},
        num_wasted_steps={p: c.num_wasted_steps for p, c in counted.items()},
        max_window_used=max(counters.max_window_used, theirs.max_window_used),
        aggregator=settling.aggregator or us,
        opener_share=answer.opener_share(),
        dropped_mass_mean=mean,
        dropped_mass_max=largest,
        our_documents=answer.document_shares(),
        their_documents=contact.finish.documents if contact.finish is not None else (),
        rtt_seconds=contact.rtt_seconds,
        term=term,
    )


def public_documents(us: Peer, answer: Answer) -> tuple[DocumentShare, ...]:
    """The documents an end may name to the other: the opener's stay where they are."""
    if us is Peer.OPENER:
        return ()
    return tuple(DocumentShare(name, round(share / SHARE_UNIT)) for name, share in answer.document_shares())
