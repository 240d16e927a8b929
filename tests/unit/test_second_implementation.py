"""Real sessions beside the page: whatever a Resume does at an end, docs/protocol-session.md says that it does."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core import codec
from dragon_core.messages import Envelope, Failure, Handover, Ready, Resume, Target
from dragon_core.session.end import SessionEnd
from dragon_core.session.events import Send
from dragon_core.session.lifecycle import State
from dragon_core.types import Context, Peer
from simulator.oracle import Question
from simulator.peer_pair import PairEnd, PeerPair
from simulator.schedule import Schedule
from tests import independent_peer
from tests import independent_session as page
from tests.unit.core.session.inside import term_of, wire_of
from tests.unit.core.session.strategies import questions, rough_schedules, spans

EVEN = ((Context(tokens=(1,), relevance=0.2),), (Context(tokens=(1,), relevance=0.2),))
LONG = Question(seed=8, end_penalty=60.0, max_tokens=80)


@dataclass(frozen=True, slots=True)
class Seen:
    """A Resume that arrived, what the end knew, what the page makes of it, and how many tokens were dropped."""

    at: Peer
    resume: Resume
    before: page.End
    followed: page.Followed
    num_dropped: int


@dataclass
class WatchedPair(PeerPair):
    """Compares both implementations at every Resume that arrives."""

    seen: list[Seen] = field(default_factory=list)

    def _deliver(self, receiver: PairEnd, frame: bytes) -> None:
        envelope = independent_peer.read_frame(frame)
        message = codec.decode(frame).message
        if not isinstance(message, Resume) or receiver.is_gone:
            super()._deliver(receiver, frame)
            return
        before, tokens = self._known(receiver), tokens_of(receiver)
        num_effects = len(receiver.effects)
        super()._deliver(receiver, frame)
        after = self._known(receiver)
        # Frames that a rolled back model loses are not live any more.
        followed = page.receive(replace(before, num_frames=after.num_frames), envelope)
        require_followed(followed, after, sent_by(receiver, since=num_effects))
        num_kept = followed.end.next_position
        assert tokens_of(receiver)[:num_kept] == tokens[:num_kept], "what the page keeps is kept"
        self.seen.append(Seen(receiver.peer, message, before, followed, len(tokens) - num_kept))

    @property
    def acts(self) -> set[str]:
        return {act for each in self.seen for act in each.followed.acts}

    def _known(self, end: PairEnd) -> page.End:
        """What the page's function is told: from what was sent where that shows it, else from the session."""
        real = end.session._end
        is_open = isinstance(real, SessionEnd)
        sent = [effect.envelope for effect in end.effects if isinstance(effect, Send)]
        has_sent_ready = any(isinstance(envelope.message, Ready) for envelope in sent)
        is_pinned = end.peer is Peer.OPENER and self.schedule.placement is Peer.OPENER
        ours = real.ours if isinstance(real, SessionEnd) and has_sent_ready and not is_pinned else None
        return page.End(
            peer=end.peer,
            term=term_of(end),
            next_position=len(tokens_of(end)),
            aggregator=end.session.aggregator,
            has_sent_ready=has_sent_ready,
            num_frames=0 if ours is None else len(ours.drafting.tree.live_frames()),
            handover_sequence=max((each.sequence for each in sent if isinstance(each.message, Handover)), default=-1),
            last_read=real.contact.wire.last_received,
            is_open=is_open,
            is_bound=real.contact.is_bound,
            is_closed=end.session.state is State.CLOSED,
        )


def tokens_of(end: PairEnd) -> list[int]:
    real = end.session._end
    return list(real.answer.tokens) if isinstance(real, SessionEnd) else []


def sent_by(end: PairEnd, *, since: int) -> list[page.Sent]:
    """What an end has sent, as the page's functions tell it."""
    return [told(effect.envelope) for effect in end.effects[since:] if isinstance(effect, Send)]


def told(envelope: Envelope) -> page.Sent:
    match envelope.message:
        case Target(position=position):
            return ("Target", position)
        case Failure(field=name):
            return ("Failure", name)
        case Resume(next_position=next_position, last_sequence=last_sequence, aggregator=aggregator):
            return ("Resume", envelope.term, next_position, last_sequence, aggregator)
        case message:
            return (type(message).__name__,)


def require_followed(followed: page.Followed, after: page.End, sent: list[page.Sent]) -> None:
    """The real end did what the page says; beside that it fixes what it can where it aggregates, and may finish."""
    expected = followed.end
    assert sent[: len(followed.sent)] == list(followed.sent)
    for name, *fields in sent[len(followed.sent) :]:
        assert name == "Finish" or (name == "Target" and expected.is_aggregating)
        assert name == "Finish" or fields == [expected.next_position]
    if expected.is_closed:
        assert after.is_closed
        return
    assert (after.term, after.aggregator) == (expected.term, expected.aggregator)
    assert after.next_position == expected.next_position or (
        expected.is_aggregating and after.next_position > expected.next_position
    )


# -- any schedule --------------------------------------------------------------------------------------------------


moving_schedules = st.builds(
    Schedule,
    delay_seconds=st.sampled_from([0.02, 0.15, 0.3]),
    jitter_seconds=st.sampled_from([0.0, 0.02]),
    prefill_seconds=st.just((0.0, 0.0)),
    decode_seconds=st.sampled_from([(0.002, 0.002), (0.02, 0.02)]),
    window=st.integers(1, 8),
    moves=st.lists(st.floats(0.3, 3.0), min_size=1, max_size=8).map(tuple),
    cuts=st.lists(spans, max_size=1).map(tuple),
    are_cuts_noticed=st.booleans(),
    lost=st.frozensets(st.integers(5, 150), max_size=12),
)
"""Authority goes back and forth while frames are lost."""


@settings(max_examples=30, deadline=None)
@given(questions | st.just(LONG), rough_schedules | moving_schedules)
def test_every_resume_does_what_the_page_says(question: Question, schedule: Schedule) -> None:
    WatchedPair(question, schedule).run()


ROUGH = (
    Schedule(placement=Peer.OTHER, lost=frozenset({20, 31})),
    Schedule(placement=Peer.OPENER, cuts=((0.4, 0.6),), are_cuts_noticed=True),
    Schedule(placement=Peer.OTHER, silences=((Peer.OTHER, 0.4, 4.0),)),
    Schedule(moves=(0.4, 0.5, 0.6, 0.9), lost=frozenset(range(15, 90, 7)), jitter_seconds=0.02),
)


def test_all_that_the_page_says_of_a_resume_happens_in_these_sessions() -> None:
    """But for what is refused or taken over: see below."""
    acts: set[str] = set()
    num_dropped = 0
    for schedule in ROUGH:
        pair = WatchedPair(LONG, schedule)
        pair.run()
        acts |= pair.acts
        num_dropped += sum(each.num_dropped for each in pair.seen)
    assert acts == {"adopt the term", "send a Target", "send live frames", "resync"}
    assert num_dropped > 0


# -- Handover and Resume -------------------------------------------------------------------------------------------


def test_a_resume_that_crosses_a_handover_takes_nothing_over() -> None:
    """The other, long without news, says that the opener aggregates; the opener's Handover is on its way to it."""
    schedule = Schedule(
        delay_seconds=0.15,
        prefill_seconds=(0.0, 0.0),
        decode_seconds=(0.002, 0.002),
        window=1,
        moves=(1.0, 1.25),
        are_stale_answers_given=False,
    )
    pair = WatchedPair(Question(seed=0, temperature=0.0, max_tokens=4, contexts=EVEN), schedule)
    pair.run()
    crossing = [
        each
        for each in pair.seen
        if each.before.aggregator == "other"
        and each.resume.aggregator is each.at is Peer.OPENER
        and each.resume.last_sequence < each.before.handover_sequence
    ]
    assert crossing, "this schedule has one"
    assert all("take over" not in each.followed.acts for each in crossing)
    assert term_of(pair.opener) == 0
    assert not pair.degraded


@pytest.mark.parametrize("sender", Peer)
@pytest.mark.parametrize("lost_after", range(4))
def test_a_handover_that_was_lost_is_taken_over(lost_after: int, sender: Peer) -> None:
    """Each end believes that the other aggregates, until a Resume tells the opener so."""
    schedule = Schedule(moves=(0.4, 0.7), decode_seconds=(0.02, 0.02))
    watched = WatchedPair(LONG, schedule)
    watched.run()
    number = next(
        at for at, (peer, sent) in enumerate(watched.messages) if isinstance(sent, Handover) and peer is sender
    )
    pair = WatchedPair(LONG, replace(schedule, lost=frozenset(range(number, number + 1 + lost_after))))
    pair.run()
    taken_over = [each for each in pair.seen if "take over" in each.followed.acts]
    assert [each.at for each in taken_over] == [Peer.OPENER]
    assert term_of(pair.opener) == 1


def test_a_resume_beyond_what_the_aggregator_fixed_is_refused() -> None:
    pair = WatchedPair(LONG, Schedule(placement=Peer.OPENER))
    pair.start()
    pair.time.run_to(0.6)
    wire = wire_of(pair.other)
    message = Resume(next_position=99, last_sequence=wire.last_received or 0, aggregator=Peer.OPENER)
    pair.perform(pair.other, [Send(wire.seal(message, now=pair.now))])
    pair.finish()
    (seen,) = [each for each in pair.seen if each.followed.acts == ("refuse",)]
    assert (seen.at, seen.followed.sent) == (Peer.OPENER, (("Failure", "next_position"),))
    assert pair.closed[Peer.OPENER].error
