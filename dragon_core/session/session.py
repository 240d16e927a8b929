"""The session: every event goes in through `receive`, every effect comes out of it. This file does not know what role
we play in a cluster, only which peer has the user. It has no clock, no chance and no I/O.
"""

from dataclasses import dataclass

from dragon_core import codec
from dragon_core.coupling import Coupling, make_coupling
from dragon_core.drafts import OwnFrame
from dragon_core.errors import PeerError
from dragon_core.messages import (
    PROTOCOL_VERSION,
    Accepted,
    AnyMessage,
    Counters,
    DocumentShare,
    Draft,
    Envelope,
    Failure,
    Finish,
    FinishReason,
    Handover,
    MoveRequest,
    Open,
    Ready,
    Refused,
    Resume,
    Target,
    require_same,
)
from dragon_core.placement import PlacementInputs, initial_placement
from dragon_core.session.answer import SHARE_UNIT, Answer, settled_of
from dragon_core.session.drafting import Drafting
from dragon_core.session.ending import Ending
from dragon_core.session.events import (
    Bind,
    Cancelled,
    Closed,
    Effect,
    Emit,
    EngineFailed,
    EngineOpened,
    Event,
    MoveAsked,
    Prepare,
    Received,
    Reconnected,
    Refuse,
    Report,
    Run,
    Send,
    SendOpen,
    Stepped,
    TimePassed,
)
from dragon_core.session.lifecycle import State, require_legal
from dragon_core.session.link import LinkEstimate
from dragon_core.session.settings import SessionSettings
from dragon_core.session.settling import Fixed, Settling
from dragon_core.session.wire import Wire
from dragon_core.types import Peer, Step

FRAMES_SLACK = 8
"""Frames in flight past W * B while the two ends' targets differ by a round trip."""


@dataclass(frozen=True, slots=True)
class _PeerReady:
    constant_weight_level: int | None
    decode_seconds: float


class Session:
    """One answer at one end. `deadline` is when `receive(TimePassed(), now)` is wanted next, None for never."""

    def __init__(self, us: Peer, settings: SessionSettings) -> None:
        self.us = us
        self.state = State.IDLE
        self._settings = settings
        self._limits = settings.limits
        self._now = 0.0
        self._effects: list[Effect] = []
        self._timers: dict[str, float] = {}
        self._link = LinkEstimate()
        self._wire = Wire(self._link)
        self._request: Open | None = None
        self._answer: Answer | None = None
        self._settling: Settling | None = None
        self._drafting: Drafting | None = None
        self._coupling: Coupling | None = None
        self._documents: tuple[tuple[str, ...], ...] = ()
        self._ready: dict[Peer, _PeerReady] = {}
        self._agreed_rtt: float | None = None
        self._is_bound = us is Peer.OTHER
        self._num_opens = 0
        self._num_retries = 0
        self._term_position = 0
        self._is_term_known = True
        self._is_solo = False
        self._their_finish: Finish | None = None

    @classmethod
    def open(
        cls, settings: SessionSettings, request: Open, *, now: float, is_solo: bool = False
    ) -> tuple["Session", list[Effect]]:
        """A session of the end that has the user, and the first effects. With `is_solo` no other end is asked."""
        session = cls(Peer.OPENER, settings)
        session._now = now
        session._begin(request)
        session.state = State.OPENING
        session._effects.append(Prepare(request))
        session._is_solo = is_solo
        if is_solo:
            session._require_settling().go_alone()
        else:
            session._send_open()
        session._timers["deadline"] = now + request.deadline_seconds
        return session, session._drain()

    @property
    def deadline(self) -> float | None:
        return min(self._timers.values(), default=None)

    @property
    def rtt_seconds(self) -> float | None:
        return self._link.rtt_seconds

    @property
    def term(self) -> int:
        return self._wire.term

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event; returns what the driver must do, in order. After Closed nothing is taken any more."""
        self._now = now
        if self.state is State.CLOSED:
            return []
        try:
            self._dispatch(event)
            self._pump()
        except PeerError as error:
            self._fail(str(error), field=error.field)
        return self._drain()

    def _dispatch(self, event: Event) -> None:
        match event:
            case Received(envelope):
                self._on_received(envelope)
            case Stepped(ticket, step):
                self._on_step(ticket, step)
            case EngineOpened():
                self._on_engine_opened(event)
            case TimePassed():
                self._on_time()
            case Reconnected():
                self._resync()
            case MoveAsked(placement, reason):
                self._on_move(placement, reason)
            case Cancelled():
                self._on_cancelled()
            case EngineFailed(reason):
                self._fail(reason)
            case Refuse(reason, field, retry_after_seconds):
                self._refuse(reason, field, retry_after_seconds)

    # -- opening ------------------------------------------------------------------------------------------------

    def _begin(self, request: Open) -> None:
        self._request = request
        ending = Ending(self._settings.vocabulary, max_tokens=request.max_tokens, stop=request.stop)
        self._answer = Answer(self.us, ending, request.settled)
        self._settling = Settling(self.us, self._answer, max_frames=(request.window + FRAMES_SLACK) * request.branches)

    def _send_open(self) -> None:
        request, answer = self._require_request(), self._require_answer()
        message = Open(
            **{name: getattr(request, name) for name in request.__struct_fields__ if name != "settled"},
            settled=tuple(answer.tokens),
        )
        self._is_bound = False
        self._num_opens += 1
        self._effects.append(SendOpen(self._wire.seal(message, self._now)))
        self._timers["accept"] = self._now + self._limits.accept(self._link.rtt_seconds)

    def _on_open(self, message: Open, term: int) -> None:
        if message.version != PROTOCOL_VERSION:
            raise PeerError(f"protocol version {message.version}; here {PROTOCOL_VERSION}", field="version")
        require_same(self._settings.fingerprint, message.fingerprint)
        beyond = [token for token in message.settled if token >= len(self._settings.vocabulary)]
        if beyond:
            raise PeerError(f"token {beyond[0]} is beyond the vocabulary", field="settled")
        self._begin(message)
        self._wire.term = term
        self.state = State.PREPARING
        self._timers["deadline"] = self._now + message.deadline_seconds
        self._timers["idle"] = self._now + self._limits.idle
        if term > 0:
            self._require_settling().aggregator = Peer.OPENER
        self._send(Accepted(replica=self._settings.replica, prefill_deadline_seconds=self._limits.prefill_deadline))
        self._effects.append(Prepare(message))

    def _on_accepted(self, message: Accepted) -> None:
        if self._is_bound:
            return
        self._is_bound = True
        self._is_term_known = True
        self._timers.pop("accept", None)
        self._effects.append(Bind(message.replica))
        self._timers["prefill"] = self._now + message.prefill_deadline_seconds
        if self.state is State.OPENING:
            self.state = State.PREPARING
        self._announce_ready()

    def _on_refused(self, message: Refused) -> None:
        self._timers.pop("accept", None)
        if message.retry_after_seconds is None:
            self._close(
                FinishReason.ERROR, f"refused by the other end ({message.field or 'session'}): {message.reason}"
            )
            return
        self._timers["retry"] = self._now + message.retry_after_seconds
        if self._require_settling().alone is None:
            self._take_over()

    def _on_engine_opened(self, event: EngineOpened) -> None:
        request, answer = self._require_request(), self._require_answer()
        self._documents = event.document_ids
        self._ready[self.us] = _PeerReady(event.constant_weight_level, event.decode_seconds)
        self._exchange_coupling()
        self._drafting = Drafting(
            self.us,
            self._require_coupling(),
            answer.tokens,
            window=request.window,
            branches=request.branches,
            max_tokens=request.max_tokens,
            end_ids=self._settings.vocabulary.end_ids,
            decode_seconds=event.decode_seconds,
        )
        self._announce_ready()
        self._place()

    def _announce_ready(self) -> None:
        """Ready and the first frames, once both our contexts and the other end are there."""
        ours = self._ready.get(self.us)
        if ours is None or not self._is_bound:
            return
        rtt = self._link.rtt_seconds if self.us is Peer.OPENER else None
        if self.us is Peer.OPENER:
            self._agreed_rtt = rtt
        self._send(
            Ready(
                num_contexts=len(self._documents),
                constant_weight_level=ours.constant_weight_level,
                decode_seconds=ours.decode_seconds,
                rtt_seconds=rtt,
            )
        )
        self._send_live_frames()

    def _on_ready(self, message: Ready) -> None:
        self._timers.pop("prefill", None)
        self._ready[self.us.opposite] = _PeerReady(message.constant_weight_level, message.decode_seconds)
        if self.us is Peer.OTHER:
            self._agreed_rtt = message.rtt_seconds
        if self._coupling is not None:
            self._exchange_coupling()
        self._hear()
        self._place()

    def _exchange_coupling(self) -> None:
        """Guesses need only the seed; early settlement also the constant weights known so far."""
        request = self._require_request()
        self._coupling = make_coupling(
            request.coupling,
            seed=request.seed,
            temperature=request.temperature,
            num_top_logprobs=request.num_top_logprobs,
            constant_weight_levels={
                peer: ready.constant_weight_level
                for peer, ready in self._ready.items()
                if ready.constant_weight_level is not None
            },
        )
        if self._drafting is not None:
            self._drafting.coupling = self._coupling

    def _place(self) -> None:
        """Both Ready are known: the same pure function at both ends says who aggregates."""
        if self.state not in (State.OPENING, State.PREPARING) or self._drafting is None:
            return
        settling = self._require_settling()
        if settling.aggregator is None:
            if len(self._ready) < 2:
                return
            inputs = {
                peer: PlacementInputs(
                    constant_weight_level=ready.constant_weight_level, decode_seconds=ready.decode_seconds
                )
                for peer, ready in self._ready.items()
            }
            settling.give_to(
                initial_placement(
                    inputs[Peer.OPENER],
                    inputs[Peer.OTHER],
                    rtt_seconds=self._agreed_rtt or 0.0,
                    pinned=self._require_request().placement,
                )
            )
        self.state = State.RUNNING
        self._mark_progress()

    # -- messages -----------------------------------------------------------------------------------------------

    def _on_received(self, envelope: Envelope) -> None:
        message = envelope.message
        require_legal(self.us, self.state, message)
        if isinstance(message, Open):
            self._wire.unseal(envelope, self._now)
            self._on_open(message, envelope.term)
            return
        is_resume = isinstance(message, Resume)
        if self.us is Peer.OTHER:
            self._timers["idle"] = self._now + self._limits.idle
        elif envelope.term > self._wire.term:
            raise PeerError(f"term {envelope.term} was never begun; it is {self._wire.term}", field="term")
        has_gap = self._wire.unseal(envelope, self._now)
        if has_gap is None or envelope.term < self._wire.term:
            return
        if envelope.term > self._wire.term and not is_resume:
            return
        self._on_message(message, envelope.term)
        if has_gap and self.state in (State.RUNNING, State.FINISHING):
            self._resync()

    def _on_message(self, message: AnyMessage, term: int) -> None:
        match message:
            case Draft():
                self._on_draft(message)
            case Target():
                self._on_target(message)
            case Accepted():
                self._on_accepted(message)
            case Refused():
                self._on_refused(message)
            case Ready():
                self._on_ready(message)
            case MoveRequest(placement, _):
                self._on_move_request(placement)
            case Handover():
                self._on_handover(message)
            case Resume():
                self._on_resume(message, term)
            case Finish():
                self._on_finish(message)
            case Failure():
                self._on_failure(message)
            case _:
                pass

    def _on_draft(self, draft: Draft) -> None:
        settling = self._require_settling()
        if settling.aggregator is self.us.opposite:
            return
        theirs = self._ready.get(self.us.opposite)
        if theirs is None:
            return
        request = self._require_request()
        published = codec.published_of(
            draft,
            constant_weight_level=theirs.constant_weight_level,
            vocabulary_size=len(self._settings.vocabulary),
            max_published_tokens=self._settings.cut.max_published_tokens,
        )
        if draft.position > self._require_answer().next_position + request.window + FRAMES_SLACK:
            raise PeerError(f"a frame at {draft.position} is beyond the window of {request.window}", field="position")
        settling.theirs.add(
            published,
            id=draft.id,
            parent=draft.parent,
            via=draft.via,
            position=draft.position,
            settled=self._require_answer().tokens,
        )

    def _on_target(self, target: Target) -> None:
        answer, settling = self._require_answer(), self._require_settling()
        if settling.is_ours:
            raise PeerError("a target for a session that is aggregated here", field="position")
        if len(target.details) != len(target.tokens):
            raise PeerError(f"{len(target.tokens)} tokens with {len(target.details)} details", field="details")
        if target.position > answer.next_position:
            return
        for offset, (token, detail) in enumerate(zip(target.tokens, target.details, strict=True)):
            position = target.position + offset
            if token >= len(self._settings.vocabulary):
                raise PeerError(f"token {token} is beyond the vocabulary", field="tokens")
            if position < answer.next_position:
                if answer.tokens[position] != token:
                    raise PeerError(f"position {position} was fixed before with another token", field="tokens")
                continue
            if answer.is_over:
                raise PeerError("a target after the end of the answer", field="position")
            self._fix(Fixed(settled_of(token, detail), detail, is_degraded=False))

    def _on_step(self, ticket: int, step: Step) -> None:
        drafting = self._drafting
        if drafting is None:
            return
        frame = drafting.tree.answered(ticket, step, now=self._now)
        if frame is not None and self._is_publishing:
            self._send_frame(frame)
        if frame is not None and frame is drafting.tree.current:
            self._mark_progress()

    # -- targets ------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Settle what can be settled, then draft ahead; collects the engine's commands."""
        drafting = self._drafting
        if drafting is None or self.state is State.CLOSED:
            return
        if self.state is State.RUNNING and self._require_settling().is_ours:
            self._settle()
        if self.state is State.RUNNING and self._require_answer().is_over:
            self._finish()
        if self.state in (State.PREPARING, State.RUNNING):
            again_at = drafting.extend(now=self._now, rtt_seconds=self._link.rtt_seconds)
            self._set_timer("draft", again_at)
        if commands := drafting.take_commands():
            self._effects.append(Run(commands))

    def _settle(self) -> None:
        answer, settling, drafting = self._require_answer(), self._require_settling(), self._drafting
        first = answer.next_position
        while drafting is not None and not answer.is_over:
            fixed = settling.next_fixed(
                drafting, self._require_coupling(), now=self._now, stall_seconds=self._stall_seconds()
            )
            if fixed is None:
                break
            self._fix(fixed)
        if settling.alone is not None:
            self._set_timer("mix", settling.alone.mix_deadline)
        if answer.next_position > first and self._is_bound:
            self._send(answer.target_from(first))

    def _fix(self, fixed: Fixed) -> None:
        answer, settling = self._require_answer(), self._require_settling()
        position = answer.next_position
        if self._drafting is not None:
            step = self._drafting.step_at(position)
            if step is not None and fixed.detail is not None:
                answer.attribute(step, fixed.settled.token, fixed.detail, self._documents)
            self._drafting.advance(fixed.settled.token, now=self._now)
        if settling.is_ours:
            settling.theirs.advance(fixed.settled.token)
        is_degraded = fixed.is_degraded and not self._is_solo
        text = answer.fix(fixed.settled.token, fixed.detail, is_degraded=is_degraded)
        if self.us is Peer.OPENER:
            self._effects.append(Emit(position=position, settled=fixed.settled, text=text, is_degraded=is_degraded))
        self._mark_progress()

    # -- small things -------------------------------------------------------------------------------------------

    def _send(self, message: AnyMessage) -> None:
        self._effects.append(Send(self._wire.seal(message, self._now)))

    def _drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _set_timer(self, name: str, at: float | None) -> None:
        if at is None:
            self._timers.pop(name, None)
        else:
            self._timers[name] = at

    def _stall_seconds(self) -> float:
        decode = max((ready.decode_seconds for ready in self._ready.values()), default=0.0)
        return self._limits.stall(self._link.rtt_seconds, decode)

    def _mark_progress(self) -> None:
        if self.us is Peer.OPENER and self.state is State.RUNNING and self._require_settling().alone is None:
            self._timers["stall"] = self._now + self._stall_seconds()
            self._timers["nudge"] = self._now + self._stall_seconds() / 2

    @property
    def _is_publishing(self) -> bool:
        return self._is_bound and self.us in self._ready and not self._require_settling().is_ours

    def _require_request(self) -> Open:
        assert self._request is not None  # noqa: S101 - set before any state that asks
        return self._request

    def _require_answer(self) -> Answer:
        assert self._answer is not None  # noqa: S101 - set with the request
        return self._answer

    def _require_settling(self) -> Settling:
        assert self._settling is not None  # noqa: S101 - set with the request
        return self._settling

    def _require_coupling(self) -> Coupling:
        assert self._coupling is not None  # noqa: S101 - set when the engine opens
        return self._coupling

    # -- frames -------------------------------------------------------------------------------------------------

    def _draft_message(self, frame: OwnFrame) -> Draft:
        """The current frame goes without parent: it continues the settled path, which the other end knows."""
        drafting = self._drafting
        assert drafting is not None and frame.step is not None  # noqa: S101, PT018 - callers hold a made frame
        is_root = frame is drafting.tree.current
        return codec.draft_of(
            frame.step.published,
            id=frame.id,
            parent=None if is_root else frame.parent_id,
            via=None if is_root else frame.via,
            position=frame.position,
            has_constant_weight=self._ready[self.us].constant_weight_level is not None,
        )

    def _send_frame(self, frame: OwnFrame) -> None:
        self._send(self._draft_message(frame))

    def _send_live_frames(self) -> None:
        if self._drafting is not None and self._is_publishing:
            for frame in self._drafting.tree.live_frames():
                self._send_frame(frame)

    def _fail(self, reason: str, *, field: str = "") -> None:
        """Give the session up and tell the other end."""
        if self._is_bound:
            self._send(Failure(reason=reason, field=field))
        self._close(FinishReason.ERROR, reason)

    # -- recovery -----------------------------------------------------------------------------------------------

    def _resync(self) -> None:
        """Say what this end holds and repeat our live frames: after a reconnect or a gap."""
        answer, settling = self._require_answer(), self._require_settling()
        if not self._is_bound:
            return
        self._send(
            Resume(
                next_position=answer.next_position,
                last_sequence=self._wire.last_received or 0,
                is_aggregator=settling.is_ours,
                term_position=self._term_position,
                mix_position=None if settling.alone is None else settling.alone.mix_position,
            )
        )
        self._send_live_frames()

    def _take_over(self) -> None:
        """The opener goes on by itself in a new term; what the other fixes in an older one is void."""
        if self._is_term_known:
            self._term_position = self._require_answer().next_position
        self._is_term_known = False
        self._wire.term += 1
        self._require_settling().go_alone()
        self._resync()

    def _hear(self) -> None:
        """The other end speaks in our term: bring it up to date and expect its frames again."""
        settling = self._require_settling()
        self._is_term_known = True
        if self.us is Peer.OPENER and settling.alone is not None and not settling.alone.is_heard:
            settling.expect_frames(
                at_once=False,
                rtt_seconds=self._link.rtt_seconds,
                decode_seconds=max(ready.decode_seconds for ready in self._ready.values()),
            )

    def _on_resume(self, message: Resume, term: int) -> None:
        answer, settling = self._require_answer(), self._require_settling()
        if term > self._wire.term:
            self._wire.term = term
            settling.give_to(Peer.OPENER)
            answer.cut_to(message.term_position)
            if self._drafting is not None and self._drafting.tree.next_position > answer.next_position:
                self._drafting.tree.restart(answer.tokens)
            self.state = State.RUNNING if self._drafting is not None else State.PREPARING
            self._resync()
            return
        if message.next_position < answer.next_position:
            self._send(answer.target_from(message.next_position))
        if message.next_position > answer.next_position and settling.is_ours:
            raise PeerError(
                f"the other end resumes at {message.next_position}; {answer.next_position} are settled",
                field="next_position",
            )
        if self.us is Peer.OPENER and not settling.is_ours and not message.is_aggregator:
            self._take_over()
        elif not settling.is_ours:
            self._send_live_frames()
            if not message.is_aggregator and self.us is Peer.OTHER:
                self._resync()
        self._hear()

    def _close(self, reason: FinishReason, error: str = "") -> None:
        self.state = State.CLOSED
        self._timers.clear()
        self._effects.append(Closed(reason=reason, error=error, report=self._report()))

    def _on_handover(self, message: Handover) -> None:
        """The old aggregator gives us the authority with its live frames; after lost targets it cannot be taken."""
        answer, settling = self._require_answer(), self._require_settling()
        if settling.is_ours:
            raise PeerError("a handover to the end that aggregates already", field="position")
        if message.position < answer.next_position:
            raise PeerError(f"a handover at {message.position}; {answer.next_position} are settled", field="position")
        if message.position > answer.next_position:
            self._resync()
            return
        settling.give_to(self.us)
        for draft in message.drafts:
            self._on_draft(draft)

    def _on_move(self, placement: Peer, reason: str) -> None:
        """The scheduler beside us asks: hand over when we aggregate, else ask the peer that does."""
        settling = self._require_settling()
        is_settled = self.state is not State.RUNNING or settling.aggregator in (None, placement)
        if is_settled or settling.alone is not None or self._require_request().placement is not None:
            return
        if settling.is_ours:
            self._hand_over()
        else:
            self._send(MoveRequest(placement, reason))

    def _on_move_request(self, placement: Peer) -> None:
        settling = self._require_settling()
        is_free = self._require_request().placement is None and settling.alone is None
        if self.state is State.RUNNING and settling.is_ours and placement is not self.us and is_free:
            self._hand_over()

    def _hand_over(self) -> None:
        drafting = self._drafting
        frames = [] if drafting is None else drafting.tree.live_frames()
        drafts = tuple(self._draft_message(frame) for frame in frames)
        self._require_settling().give_to(self.us.opposite)
        self._send(Handover(self._require_answer().next_position, drafts))

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The settled tokens have reached the end: say so, and wait a little for what the other end counted."""
        answer, settling = self._require_answer(), self._require_settling()
        reason = answer.ending.reason
        if reason is None or self.state is State.FINISHING:
            return
        self.state = State.FINISHING
        for name in ("stall", "nudge", "draft", "mix", "retry", "accept", "prefill"):
            self._timers.pop(name, None)
        if not self._is_bound:
            self._close(reason)
            return
        self._send(Finish(reason=reason, counters=self._counters(), documents=self._public_documents()))
        is_done = self._their_finish is not None or (settling.alone is not None and not settling.alone.is_heard)
        if is_done and self.us is Peer.OPENER:
            self._close(reason)
            return
        wait = max(self._limits.finish_floor, 3 * (self._link.rtt_seconds or 0.0))
        self._timers["finish"] = self._now + (wait if self.us is Peer.OPENER else self._stall_seconds() * 4)

    def _on_finish(self, message: Finish) -> None:
        self._their_finish = message
        if self.us is Peer.OPENER:
            if self.state is State.FINISHING:
                self._close(self._end_reason())
            return
        if self.state is not State.FINISHING and self._require_answer().is_over:
            self._finish()
        self._close(message.reason)

    def _on_failure(self, message: Failure) -> None:
        """The other end gave up: the opener carries on alone and asks for another replica."""
        if self.us is Peer.OTHER or self._drafting is None:
            self._close(FinishReason.ERROR, f"the other end gave up ({message.field or 'session'}): {message.reason}")
            return
        if self.state is State.FINISHING:
            self._close(self._end_reason())
            return
        self._is_bound = False
        self.state = State.RUNNING
        self._take_over()
        self._retry_later()

    def _on_cancelled(self) -> None:
        if self._is_bound and self.state is not State.IDLE:
            if self.us is Peer.OPENER:
                self._send(Finish(reason=FinishReason.CANCELLED, counters=self._counters()))
            else:
                self._send(Failure(reason="this replica is going away"))
        self._close(FinishReason.CANCELLED)

    def _refuse(self, reason: str, field: str, retry_after_seconds: float | None) -> None:
        """What our own end cannot serve: the opener is told, its user gets the error."""
        if self.us is Peer.OTHER:
            self._send(Refused(reason=reason, field=field, retry_after_seconds=retry_after_seconds))
        elif self._is_bound:
            self._send(Finish(reason=FinishReason.ERROR, counters=self._counters()))
        self._close(FinishReason.ERROR, reason)

    def _end_reason(self) -> FinishReason:
        return self._require_answer().ending.reason or FinishReason.ERROR

    # -- time ---------------------------------------------------------------------------------------------------

    def _on_time(self) -> None:
        due = sorted(name for name, at in self._timers.items() if at <= self._now)
        for name in due:
            if self._timers.pop(name, None) is None:
                continue
            match name:
                case "deadline":
                    self._fail("the answer took longer than its deadline")
                case "idle":
                    self._close(FinishReason.ERROR, "nothing was heard from the other end")
                case "finish":
                    self._close(self._end_reason())
                case "accept":
                    self._on_accept_timeout()
                case "prefill":
                    self._on_stalled()
                case "nudge":
                    self._resync()
                case "stall":
                    self._on_stalled()
                case "retry":
                    self._on_retry()
                case _:
                    pass  # "draft" and "mix" only ask for another look
            if self.state is State.CLOSED:
                return

    def _on_accept_timeout(self) -> None:
        if self._num_opens < 2:
            self._send_open()
        else:
            self._on_stalled()

    def _on_stalled(self) -> None:
        """Nothing came in time. Alone already: frames are waited for by `mix`; else take over once we can decode."""
        settling = self._require_settling()
        if self.us is Peer.OTHER or settling.alone is not None:
            return
        if self._drafting is None:
            self._timers["prefill"] = self._now + self._limits.stall_floor
            return
        if self._drafting.published_at(self._require_answer().next_position) is None:
            self._mark_progress()
            return
        self._take_over()
        self.state = State.RUNNING
        self._retry_later()

    def _retry_later(self) -> None:
        delay = min(self._limits.max_retry, self._limits.retry * 2**self._num_retries)
        self._num_retries += 1
        self._timers["retry"] = self._now + delay

    def _on_retry(self) -> None:
        """Still alone: ask the replica to resume, and every second time any replica to start again."""
        settling = self._require_settling()
        if settling.alone is None:
            self._num_retries = 0
            return
        if not settling.alone.is_heard:
            if self._is_bound and self._num_retries % 3:
                self._resync()
            else:
                self._wire.term += 1
                self._wire.restart_receiving()
                self._is_term_known = False
                self._send_open()
                self._timers.pop("accept", None)
        self._retry_later()

    # -- what is known at the end -------------------------------------------------------------------------------

    def _counters(self) -> Counters:
        return Counters() if self._drafting is None else self._drafting.counters()

    def _public_documents(self) -> tuple[DocumentShare, ...]:
        """The documents this end may name to the other: the opener's stay where they are."""
        if self.us is Peer.OPENER:
            return ()
        shares = self._require_answer().document_shares()
        return tuple(DocumentShare(name, round(share / SHARE_UNIT)) for name, share in shares)

    def _report(self) -> Report:
        answer, settling, ours = self._answer, self._settling, self._counters()
        theirs = self._their_finish.counters if self._their_finish is not None else Counters()
        counters = {self.us: ours, self.us.opposite: theirs}
        mean, largest = (None, None) if answer is None else answer.dropped_mass()
        return Report(
            num_tokens=0 if answer is None else answer.next_position,
            num_degraded=0 if answer is None else len(answer.degraded),
            num_mixed=0 if answer is None else answer.num_mixed,
            hit_rate={p: c.num_hits / c.num_positions if c.num_positions else None for p, c in counters.items()},
            num_steps={p: c.num_steps for p, c in counters.items()},
            num_wasted_steps={p: c.num_wasted_steps for p, c in counters.items()},
            max_window_used=max(ours.max_window_used, theirs.max_window_used),
            aggregator=(settling.aggregator if settling is not None else None) or self.us,
            opener_share=None if answer is None else answer.opener_share(),
            dropped_mass_mean=mean,
            dropped_mass_max=largest,
            our_documents=() if answer is None else answer.document_shares(),
            their_documents=self._their_finish.documents if self._their_finish is not None else (),
            rtt_seconds=self._link.rtt_seconds,
            term=self._wire.term,
        )
