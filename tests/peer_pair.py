"""Two sessions in virtual time: engines that take time, a link that delays, cuts and loses, and nothing random."""

import functools
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dragon_core import codec
from dragon_core.distribution import quantise_weight
from dragon_core.errors import PeerError
from dragon_core.messages import ChatMessage, Envelope, Fingerprint, Open
from dragon_core.session.events import (
    Cancelled,
    Closed,
    Effect,
    Emit,
    EngineOpened,
    Event,
    MoveAsked,
    Prepare,
    Received,
    Refuse,
    Run,
    Send,
    SendOpen,
    Stepped,
    TimePassed,
)
from dragon_core.session.session import Session
from dragon_core.session.settings import SessionSettings
from dragon_core.types import Context, CouplingKind, Cut, Feed, Peer, Sampling, Weighting, WeightingRule
from dragon_core.weighting import constant_weight
from tests.fakes.toy_engine import TOY_VOCABULARY, ToySequences


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Everything that may differ between two runs of the same answer."""

    delay_seconds: float = 0.05
    prefill_seconds: tuple[float, float] = (0.1, 0.1)
    decode_seconds: tuple[float, float] = (0.01, 0.012)
    window: int = 8
    branches: int = 1
    placement: Peer | None = None
    moves: tuple[float, ...] = ()
    cuts: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything the answer is a function of."""

    seed: int = 1
    temperature: float = 0.7
    rule: WeightingRule = WeightingRule.RELEVANCE
    coupling: CouplingKind = CouplingKind.SHARED_NOISE
    max_tokens: int = 30
    stop: tuple[str, ...] = ()
    contexts: tuple[tuple[Context, ...], tuple[Context, ...]] = (
        (Context(tokens=(1, 2), relevance=0.6, document_ids=("ours",)),),
        (Context(tokens=(3,), relevance=0.5, document_ids=("p",)), Context(tokens=(4,), relevance=0.4)),
    )


CUT = Cut(max_published_tokens=16)


@dataclass
class PeerPair:
    """Runs one question under one schedule until both ends are closed or the virtual deadline passes."""

    question: Question
    schedule: Schedule
    is_solo: bool = False
    damage: Callable[[Peer, bytes], list[bytes]] | None = None
    emitted: list[Emit] = field(default_factory=list)
    closed: dict[Peer, Closed] = field(default_factory=dict)
    num_frames: int = 0

    def __post_init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._weighting = Weighting(rule=self.question.rule)
        self._engines: dict[Peer, ToySequences] = {}
        self._engine_free: dict[Peer, float] = {Peer.OPENER: 0.0, Peer.OTHER: 0.0}
        self._settings = SessionSettings(
            fingerprint=self._fingerprint(), vocabulary=TOY_VOCABULARY, cut=CUT, replica="r0"
        )
        self.sessions: dict[Peer, Session] = {Peer.OTHER: Session(Peer.OTHER, self._settings)}

    def run(self, *, until: float = 300.0) -> list[int]:
        """The emitted tokens."""
        session, effects = Session.open(self._settings, self._open(), now=0.0, is_solo=self.is_solo)
        self.sessions[Peer.OPENER] = session
        self._perform(Peer.OPENER, effects)
        for at in self.schedule.moves:
            self._at(at, self._move)
        while self._queue and self._queue[0][0] <= until and len(self.closed) < (1 if self.is_solo else 2):
            self._step()
            self._tick()
        return [emit.settled.token for emit in self.emitted]

    def _step(self) -> None:
        self.now, _, act = heapq.heappop(self._queue)
        act()

    def _tick(self) -> None:
        """Serve deadlines that come before the next queued act."""
        while True:
            due = [(s.deadline, peer) for peer, s in self.sessions.items() if s.deadline is not None]
            if not due:
                return
            deadline, peer = min(due)
            if self._queue and self._queue[0][0] <= deadline:
                return
            self.now = max(self.now, deadline)
            if self.now > 400:
                return
            self._perform(peer, self.sessions[peer].receive(TimePassed(), self.now))

    def _at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._order), act))

    def _move(self) -> None:
        aggregators = [p for p, s in self.sessions.items() if s.aggregator is p]
        if len(aggregators) == 1:
            event = MoveAsked(aggregators[0].opposite, "test")
            self._perform(aggregators[0], self.sessions[aggregators[0]].receive(event, self.now))

    def cancel(self) -> None:
        """The user hangs up."""
        self._perform(Peer.OPENER, self.sessions[Peer.OPENER].receive(Cancelled(), self.now))

    def _perform(self, peer: Peer, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(envelope) | SendOpen(envelope):
                    self._transmit(peer, envelope)
                case Prepare():
                    self._at(
                        self.now + self.schedule.prefill_seconds[0 if peer is Peer.OPENER else 1],
                        lambda: self._prepared(peer),
                    )
                case Run(commands):
                    for command in commands:
                        self._run_command(peer, command)
                case Emit():
                    self.emitted.append(effect)
                case Closed():
                    self.closed[peer] = effect
                case _:
                    pass

    def _transmit(self, peer: Peer, envelope: Envelope) -> None:
        frame = codec.encode(envelope)
        self.num_frames += 1
        if any(start <= self.now < end for start, end in self.schedule.cuts):
            return

        def deliver(arrived: bytes) -> None:
            event: Event
            try:
                event = Received(codec.decode(arrived))
            except PeerError as error:
                event = Refuse(str(error), error.field)
            self._perform(peer.opposite, self.sessions[peer.opposite].receive(event, self.now))

        for arrived in [frame] if self.damage is None else self.damage(peer, frame):
            self._at(self.now + self.schedule.delay_seconds, functools.partial(deliver, arrived))

    def _prepared(self, peer: Peer) -> None:
        contexts = self.question.contexts[0 if peer is Peer.OPENER else 1]
        sampling = Sampling(temperature=self.question.temperature)
        self._engines[peer] = ToySequences(contexts, self._weighting, sampling, CUT)
        weight = constant_weight(np.array([context.relevance for context in contexts]), self._weighting)
        event = EngineOpened(
            constant_weight_level=None if weight is None else quantise_weight(weight),
            decode_seconds=self._decode_seconds(peer),
            document_ids=tuple(context.document_ids for context in contexts),
        )
        self._perform(peer, self.sessions[peer].receive(event, self.now))

    def _decode_seconds(self, peer: Peer) -> float:
        return self.schedule.decode_seconds[0 if peer is Peer.OPENER else 1]

    def _run_command(self, peer: Peer, command: object) -> None:
        """Commands run in order; each feed takes a step's time."""
        step = self._engines[peer].apply(command)  # type: ignore[arg-type]
        if isinstance(command, Feed) and step is not None:
            made = step
            self._engine_free[peer] = max(self.now, self._engine_free[peer]) + self._decode_seconds(peer)
            ticket = command.ticket
            self._at(
                self._engine_free[peer],
                lambda: self._perform(peer, self.sessions[peer].receive(Stepped(ticket, made), self.now)),
            )

    def _open(self) -> Open:
        return Open(
            version=1,
            fingerprint=self._settings.fingerprint,
            messages=(ChatMessage("user", "?"),),
            temperature=self.question.temperature,
            top_k=0,
            min_p=0.0,
            top_p=1.0,
            seed=self.question.seed,
            max_tokens=self.question.max_tokens,
            stop=self.question.stop,
            coupling=self.question.coupling,
            window=self.schedule.window,
            branches=self.schedule.branches,
            placement=self.schedule.placement,
            num_top_logprobs=None,
            deadline_seconds=200.0,
        )

    def _fingerprint(self) -> Fingerprint:
        weighting = self._weighting
        return Fingerprint(
            vocabulary="v",
            template="t",
            embedding="e",
            embedding_dimension=1,
            embedding_revision="r",
            weighting_rule=weighting.rule,
            weighting_temperature=weighting.temperature,
            weighting_beta=weighting.effective_beta,
            weighting_gamma=weighting.gamma,
            max_published_tokens=CUT.max_published_tokens,
            nucleus=CUT.nucleus,
        )


def oracle_tokens(question: Question, *, degraded: frozenset[int] = frozenset()) -> list[int]:
    """The answer computed in one place, without any protocol; `degraded` positions take the opener's own guess."""
    from dragon_core.coupling import make_coupling

    weighting, sampling = Weighting(rule=question.rule), Sampling(temperature=question.temperature)
    opener, other = (ToySequences(contexts, weighting, sampling, CUT) for contexts in question.contexts)
    coupling = make_coupling(
        question.coupling,
        seed=question.seed,
        temperature=question.temperature,
        num_top_logprobs=None,
        constant_weight_levels={},
    )
    tokens: list[int] = []
    while len(tokens) < question.max_tokens and not (tokens and tokens[-1] in TOY_VOCABULARY.end_ids):
        at = len(tokens)
        first, second = opener.step_after(tokens).published, other.step_after(tokens).published
        if at in degraded:
            tokens.append(coupling.guesses(at, first, 1, Peer.OPENER)[0].token)
            continue
        settled = coupling.settle(at, first, second)
        assert settled is not None
        tokens.append(settled.token)
    return tokens
