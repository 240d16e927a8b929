"""The way of a token: frames come in, the aggregator fixes targets, both ends follow them and draft ahead."""

from collections.abc import Sequence

from dragon_core import codec
from dragon_core.errors import PeerError
from dragon_core.messages import Draft, Target, require_known
from dragon_core.session.answer import settled_of
from dragon_core.session.end import FRAMES_SLACK, SessionEnd
from dragon_core.session.events import Emit, Run
from dragon_core.session.lifecycle import State
from dragon_core.session.ours import Ours
from dragon_core.session.phases.finishing import finish
from dragon_core.session.settling import Fixed
from dragon_core.session.timers import Timer
from dragon_core.types import Peer, Step

MAX_FIXED_AT_ONCE = 8
"""Tokens mixed in one go of the event loop, at 0.1 to 0.2 ms each; the rest follows after what else waits there."""


def on_draft(end: SessionEnd, draft: Draft) -> None:
    settling, theirs = end.settling, end.contact.ready
    if settling.aggregator is end.us.opposite or theirs is None:
        return
    request = end.request
    published = codec.published_of(
        draft,
        constant_weight_level=theirs.constant_weight_level,
        vocabulary_size=len(end.settings.vocabulary),
        max_published_tokens=end.settings.cut.max_published_tokens,
    )
    if draft.position > end.answer.next_position + request.window + FRAMES_SLACK:
        raise PeerError(f"a frame at {draft.position} is beyond the window of {request.window}", field="position")
    settling.theirs.add(
        published,
        id=draft.id,
        parent=draft.parent,
        via=draft.via,
        position=draft.position,
        settled=end.answer.tokens,
    )


def on_target(end: SessionEnd, target: Target) -> None:
    answer, settling = end.answer, end.settling
    if settling.is_ours and target.position + len(target.tokens) > answer.next_position:
        # Only what was fixed before the authority came here may be repeated, by an answer to an older Resume.
        raise PeerError("a target for a session that is aggregated here", field="position")
    if len(target.details) != len(target.tokens):
        raise PeerError(f"{len(target.tokens)} tokens with {len(target.details)} details", field="details")
    if target.position > answer.next_position or settling.aggregator is None:
        return  # something before it was lost: the gap makes both ends resume
    first = answer.next_position
    for offset, (token, detail) in enumerate(zip(target.tokens, target.details, strict=True)):
        position = target.position + offset
        shown = () if detail is None else detail.top
        require_known(end.settings.vocabulary, (token, *[top.token for top in shown]), field="tokens")
        if position < answer.next_position:
            if answer.tokens[position] != token:
                raise PeerError(f"position {position} was fixed before with another token", field="tokens")
            continue
        if answer.is_over:
            raise PeerError("a target after the end of the answer", field="position")
        fix(end, Fixed(settled_of(token, detail), detail, is_degraded=False))
    if answer.next_position > first:
        end.mark_progress()


def on_step(end: SessionEnd, ticket: int, step: Step) -> None:
    if end.ours is None:
        return
    tree = end.ours.drafting.tree
    frame = tree.answered(ticket, step, now=end.now)
    if frame is None:
        return
    end.send_frame(frame)
    if frame is tree.current:
        end.mark_progress()


def pump(end: SessionEnd) -> None:
    """Settle what can be settled, then draft ahead; collects the engine's commands."""
    ours = end.ours
    if ours is None or end.state is State.CLOSED:
        return
    if end.state is State.RUNNING and end.settling.is_ours:
        settle(end, ours)
    if end.state is State.RUNNING and end.answer.is_over:
        finish(end)
    if end.state in (State.PREPARING, State.RUNNING):
        again_at = ours.drafting.extend(now=end.now, rtt_seconds=end.contact.rtt_seconds)
        end.timers.set(Timer.DRAFT, again_at)
    if commands := ours.drafting.take_commands():
        end.act(Run(commands))


def settle(end: SessionEnd, ours: Ours) -> None:
    answer, settling = end.answer, end.settling
    first = answer.next_position
    while not answer.is_over:
        if answer.next_position - first == MAX_FIXED_AT_ONCE:
            end.timers.set(Timer.SETTLE, end.now)
            break
        fixed = settling.next_fixed(ours.drafting, now=end.now, stall_seconds=end.stall_seconds())
        if fixed is None:
            break
        fix(end, fixed)
    if settling.alone is not None:
        end.timers.set(Timer.MIX, settling.mix_deadline)
    if answer.next_position > first:
        end.mark_progress()
    if answer.next_position > first and end.contact.is_bound:
        end.send_targets(since=first)


def follow(end: SessionEnd, tokens: Sequence[int]) -> None:
    """Take what an Open says was settled before."""
    if end.ours is not None:
        end.ours.drafting.follow(tokens, now=end.now)
    if end.settling.is_ours:
        end.settling.theirs.follow(tokens)
    end.answer.follow(tokens)
    end.mark_progress()


def fix(end: SessionEnd, fixed: Fixed) -> None:
    answer, settling, ours = end.answer, end.settling, end.ours
    position = answer.next_position
    parts = None
    if ours is not None:
        step = ours.drafting.step_at(position)
        if step is not None and fixed.detail is not None:
            parts = answer.parts_of(step, fixed.settled.token, fixed.detail, ours.documents)
        ours.drafting.advance(fixed.settled.token, now=end.now)
    if settling.is_ours:
        settling.theirs.advance(fixed.settled.token)
    is_degraded = fixed.is_degraded and not end.is_solo
    text = answer.fix(fixed.settled.token, fixed.detail, is_degraded=is_degraded, parts=parts)
    if end.us is Peer.OPENER:
        end.act(Emit(position=position, settled=fixed.settled, text=text, is_degraded=is_degraded))
