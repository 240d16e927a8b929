"""Two sessions in virtual time: engines that take time, a link that delays, cuts and loses, and nothing random.

`Question` is what an answer is a function of, `Schedule` what must not matter.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from dragon_core import codec
from dragon_core.distribution import quantise_weight
from dragon_core.errors import PeerError
from dragon_core.link import LinkEstimate
from dragon_core.messages import AnyMessage, ChatMessage, Envelope, Open, Refused
from dragon_core.session.events import (
    Bind,
    Cancelled,
    Closed,
    Effect,
    Emit,
    EngineOpened,
    Event,
    Fault,
    MoveAsked,
    Prepare,
    Received,
    Reconnected,
    Refuse,
    Run,
    Send,
    SendOpen,
    Stepped,
    TimePassed,
)
from dragon_core.session.session import Session
from dragon_core.session.settings import SessionSettings
from dragon_core.types import Command, Feed, Peer
from dragon_core.weighting import constant_weight
from dragon_core.wire import Wire
from simulator.oracle import CUT, Question
from simulator.schedule import Schedule
from simulator.toy_engine import TOY_VOCABULARY, ToySequences
from simulator.virtual_time import VirtualTime


@dataclass(eq=False)
class PairEnd:
    """One end of a pair: a session with its engine. `name` is its replica's."""

    pair: "PeerPair"
    peer: Peer
    name: str
    session: Session
    engine: ToySequences | None = None
    free_at: float = 0.0
    is_gone: bool = False
    closed: Closed | None = None
    effects: list[Effect] = field(default_factory=list)

    @property
    def index(self) -> int:
        return 0 if self.peer is Peer.OPENER else 1

    @property
    def deadline(self) -> float | None:
        return None if self.is_gone else self.session.deadline

    def wake(self) -> None:
        self.receive(TimePassed())

    def receive(self, event: Event) -> list[Effect]:
        """Give the session an event and perform what it asks for; a replica that is gone takes nothing."""
        if self.is_gone:
            return []
        effects = self.session.receive(event, self.pair.time.now)
        self.session.check_integrity()
        self.pair.perform(self, effects)
        return effects


@dataclass
class PeerPair:
    """Runs one question under one schedule until both ends are closed or the virtual deadline passes."""

    question: Question
    schedule: Schedule
    is_solo: bool = False
    damage: Callable[[Peer, bytes], list[bytes]] | None = None
    time: VirtualTime = field(default_factory=VirtualTime)
    emitted: list[Emit] = field(default_factory=list)
    emitted_at: list[float] = field(default_factory=list)
    closed: dict[Peer, Closed] = field(default_factory=dict)
    messages: list[tuple[Peer, AnyMessage]] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    num_frames: int = 0

    def __post_init__(self) -> None:
        self.settings = SessionSettings(
            fingerprint=self.question.fingerprint, vocabulary=TOY_VOCABULARY, cut=CUT, replica="r0"
        )
        self._chance = random.Random(self.question.seed)
        self._arrivals: dict[tuple[str, str], float] = {}
        self._bound: PairEnd | None = None
        self._num_opens = 0
        self.replicas = [self._replica(f"r{number}") for number in range(self.schedule.num_replicas)]
        for replica, at in zip(self.replicas, self.schedule.deaths, strict=False):
            self.time.at(at, functools.partial(setattr, replica, "is_gone", True))
        for at in self.schedule.moves:
            self.time.at(at, self._move)
        for _, end in self.schedule.cuts if self.schedule.are_cuts_noticed else ():
            self.time.at(end, self._reconnect)

    def start(self) -> None:
        """Have the user ask."""
        session, effects = Session.open(self.settings, self.open(), now=self.time.now, is_solo=self.is_solo)
        self.opener = PairEnd(self, Peer.OPENER, "", session)
        self.time.sleepers.append(self.opener)
        self.perform(self.opener, effects)

    def run(self, *, until: float = 300.0) -> list[int]:
        """The emitted tokens."""
        self.start()
        return self.finish(until=until)

    def finish(self, *, until: float = 300.0) -> list[int]:
        """Go on from wherever a test has brought the pair; returns the emitted tokens."""
        while not self.is_over and self.time.advance(until=until):
            pass
        return self.tokens

    @property
    def is_over(self) -> bool:
        return all(end.closed or end.is_gone or end.deadline is None for end in self.ends)

    @property
    def ends(self) -> list[PairEnd]:
        return [self.opener, *self.replicas]

    @property
    def other(self) -> PairEnd:
        """The replica the opener is bound to, or the first."""
        return self._bound or self.replicas[0]

    @property
    def now(self) -> float:
        return self.time.now

    @property
    def tokens(self) -> list[int]:
        return [emit.settled.token for emit in self.emitted]

    @property
    def degraded(self) -> frozenset[int]:
        return frozenset(emit.position for emit in self.emitted if emit.is_degraded)

    def cancel(self) -> None:
        """The user hangs up."""
        self.opener.receive(Cancelled())

    def perform(self, end: PairEnd, effects: list[Effect]) -> None:
        """What a driver does with effects."""
        end.effects.extend(effects)
        for effect in effects:
            match effect:
                case Send(envelope):
                    self._transmit(end, self.opener if end.peer is Peer.OTHER else self._bound, envelope)
                case SendOpen(envelope):
                    self._transmit(end, self._next_replica(), envelope)
                case Bind(name):
                    # A hostile end may give a name that nobody has: what is sent there is lost.
                    self._bound = next((replica for replica in self.replicas if replica.name == name), None)
                case Prepare():
                    prefill = self.schedule.prefill_seconds[end.index]
                    self.time.at(self.now + prefill, functools.partial(self._prepared, end))
                case Run(commands):
                    for command in commands:
                        self._run_command(end, command)
                case Emit():
                    self.emitted.append(effect)
                    self.emitted_at.append(self.now)
                case Closed():
                    end.closed = self.closed[end.peer] = effect

    def _replica(self, name: str) -> PairEnd:
        replica = PairEnd(self, Peer.OTHER, name, Session.await_open(replace(self.settings, replica=name)))
        self.time.sleepers.append(replica)
        return replica

    def _next_replica(self) -> PairEnd:
        """Opens go round the replicas that are there; when all are gone or have closed, a new one comes."""
        alive = [replica for replica in self.replicas if not replica.is_gone and replica.closed is None]
        if not alive:
            alive = [self._replica(f"r{len(self.replicas)}")]
            self.replicas += alive
        self._num_opens += 1
        return alive[(self._num_opens - 1) % len(alive)]

    def _move(self) -> None:
        ends = [end for end in (self.opener, self.other) if end.session.aggregator is end.peer]
        if len(ends) == 1:
            ends[0].receive(MoveAsked(ends[0].peer.opposite, "test"))

    def _reconnect(self) -> None:
        for end in (self.opener, self.other):
            if end.session.aggregator is not None:
                end.receive(Reconnected())

    def _transmit(self, sender: PairEnd, receiver: PairEnd | None, envelope: Envelope) -> None:
        frame = codec.encode(envelope)
        number = self.num_frames
        self.num_frames += 1
        self.messages.append((sender.peer, envelope.message))
        self.sent_at.append(self.now)
        schedule = self.schedule
        is_cut = any(start <= self.now < end for start, end in schedule.cuts)
        is_silent = any(peer is sender.peer and start <= self.now < end for peer, start, end in schedule.silences)
        if receiver is None or is_cut or is_silent or number in schedule.lost:
            return
        frames = [frame] if self.damage is None else self.damage(sender.peer, frame)
        for arriving in frames * 2 if number in schedule.repeated else frames:
            delay = schedule.delay_seconds + self._chance.random() * schedule.jitter_seconds
            route = sender.name, receiver.name
            self._arrivals[route] = max(self._arrivals.get(route, 0.0), self.now + delay)
            self.time.at(self._arrivals[route], functools.partial(self._deliver, receiver, arriving))

    def _deliver(self, receiver: PairEnd, frame: bytes) -> None:
        event: Event
        try:
            event = Received(codec.decode(frame))
        except PeerError as error:
            event = Refuse(Fault.THEIRS, str(error), error.field)
        if isinstance(event, Received) and isinstance(event.envelope.message, Open) and self._refuse(receiver, event):
            return
        receiver.receive(event)

    def _refuse(self, replica: PairEnd, opened: Received) -> bool:
        """What a replica without room does, that opens no session; True when it has none."""
        if self.now >= self.schedule.full_until or replica.is_gone:
            return False
        wire = Wire(LinkEstimate())
        wire.unseal(opened.envelope, self.now)
        refused = Refused(reason="all slots are taken", retry_after_seconds=self.schedule.retry_after_seconds)
        self._transmit(replica, self.opener, wire.seal(refused, term=opened.envelope.term, now=self.now))
        return True

    def _prepared(self, end: PairEnd) -> None:
        if end.closed is not None:
            return
        question = self.question
        contexts = question.contexts[end.index]
        end.engine = question.sequences(end.peer, max_branches=self.schedule.branches)
        weight = constant_weight(np.array([context.relevance for context in contexts]), question.weighting)
        event = EngineOpened(
            constant_weight_level=None if weight is None else quantise_weight(weight),
            decode_seconds=self.schedule.decode_seconds[end.index],
            document_ids=tuple(context.document_ids for context in contexts),
        )
        end.receive(event)

    def _run_command(self, end: PairEnd, command: Command) -> None:
        """Commands run in order; each feed takes a step's time."""
        assert end.engine is not None
        step = end.engine.apply(command)
        if isinstance(command, Feed) and step is not None:
            more = self.schedule.fed_token_seconds * max(0, len(command.tokens) - 1)
            end.free_at = max(self.now, end.free_at) + self.schedule.decode_seconds[end.index] + more
            self.time.at(end.free_at, functools.partial(self._answer, end, Stepped(command.ticket, step)))

    def _answer(self, end: PairEnd, stepped: Stepped) -> None:
        assert end.engine is not None
        if self.schedule.are_stale_answers_given or end.engine.is_wanted(stepped.ticket):
            end.receive(stepped)

    def open(self) -> Open:
        """What the user's end asks."""
        question, schedule = self.question, self.schedule
        return Open(
            version=1,
            fingerprint=self.settings.fingerprint,
            messages=(ChatMessage("user", "?"),),
            temperature=question.temperature,
            top_k=question.top_k,
            min_p=question.min_p,
            top_p=question.top_p,
            seed=question.seed,
            max_tokens=question.max_tokens,
            stop=question.stop,
            coupling=question.coupling,
            window=schedule.window,
            branches=schedule.branches,
            placement=schedule.placement,
            num_top_logprobs=question.num_top_logprobs,
            deadline_seconds=200.0,
        )
