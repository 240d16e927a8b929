"""Two ends with real engines and drivers over a memory channel, and what they must come to.

One engine serves both ends: what a session is told does not depend on who else is there, which tests of engines show.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dragon_core.couplings.making import make_coupling
from dragon_core.messages import PROTOCOL_VERSION, ChatMessage, Open
from dragon_core.session.events import Closed, Emit, MoveAsked
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import CouplingKind, Peer, WeightingRule
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.memory import memory_channel_pair
from dragon_runtime.interfaces import Embedder, Engine, Passage
from dragon_runtime.settings import ProtocolSettings
from dragon_runtime.settings.groups import WeightingSettings
from tests.contracts.engine_sessions import driven


@dataclass(frozen=True)
class GivenPassages:
    """A retriever that is told what it finds."""

    passages: tuple[Passage, ...]

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        del query
        return list(self.passages[:num_passages])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Everything an answer is a function of, but the models. `found` are the opener's passages and the other's."""

    messages: tuple[ChatMessage, ...]
    found: tuple[tuple[Passage, ...], tuple[Passage, ...]]
    rule: WeightingRule = WeightingRule.RELEVANCE
    temperature: float = 0.7
    seed: int = 1
    max_tokens: int = 24


@dataclass(frozen=True, kw_only=True)
class Way:
    """What must not matter to it. After `moves` tokens each, the other placement is asked for."""

    window: int = 16
    branches: int = 1
    placement: Peer | None = None
    rtt_seconds: float = 0.0
    moves: tuple[int, ...] = ()


@dataclass
class Written:
    """An answer as it came about. `aggregators` are the opener's view at each token."""

    tokens: list[int] = field(default_factory=list)
    degraded: set[int] = field(default_factory=set)
    aggregators: list[Peer | None] = field(default_factory=list)
    closed: dict[Peer, Closed] = field(default_factory=dict)


class EnginePair:
    """One answer between two ends. After as many tokens as `acts` names, its acts are called."""

    def __init__(
        self,
        asked: Asked,
        way: Way,
        engines: Mapping[Peer, Engine],
        embedders: Mapping[Peer, Embedder],
        *,
        acts: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        self.acts = dict(acts or {})
        self._way = way
        self.written = Written()
        protocol = ProtocolSettings(weighting=WeightingSettings(rule=asked.rule), passages_per_context=1)
        self.preparations = {
            peer: Preparation(
                engine=engines[peer],
                embedder=embedders[peer],
                retriever=GivenPassages(found),
                protocol=protocol,
            )
            for peer, found in zip(Peer, asked.found, strict=True)
        }
        self.settings = {
            peer: preparation.session_settings(limits=Limits(), replica="r0")
            for peer, preparation in self.preparations.items()
        }
        self.request = _open(asked, way, self.preparations[Peer.OPENER])
        self.channels = dict(zip(Peer, memory_channel_pair(rtt_seconds=way.rtt_seconds), strict=True))
        now = asyncio.get_running_loop().time()
        session, self.first_effects = Session.open(self.settings[Peer.OPENER], self.request, now=now)
        self.sessions = {Peer.OPENER: session, Peer.OTHER: Session.await_open(self.settings[Peer.OTHER])}
        self.drivers = {
            peer: SessionDriver(
                self.sessions[peer],
                self.channels[peer],
                prepare=self.preparations[peer].prepare,
                on_emit=self._on_emit if peer is Peer.OPENER else None,
            )
            for peer in Peer
        }

    async def run(self) -> Written:
        """Until both ends are closed; cancelling this is the user going away, the other end hears of it."""
        other = asyncio.create_task(self.drivers[Peer.OTHER].run())
        try:
            self.written.closed[Peer.OPENER] = await self.drivers[Peer.OPENER].run(self.first_effects)
        finally:
            self.written.closed[Peer.OTHER] = await other
        return self.written

    def set_cut(self, *, is_cut: bool) -> None:
        """Lose every frame from now on, or no longer."""
        for channel in self.channels.values():
            if is_cut:
                channel.is_cut = True
            else:
                channel.restore()

    def _on_emit(self, emit: Emit) -> None:
        written = self.written
        written.aggregators.append(self.sessions[Peer.OPENER].aggregator)
        if emit.is_degraded:
            written.degraded.add(emit.position)
        written.tokens.append(emit.settled.token)
        if len(written.tokens) in self._way.moves:
            asyncio.get_running_loop().call_soon(self._ask_to_move)
        self.acts.get(len(written.tokens), lambda: None)()

    def _ask_to_move(self) -> None:
        aggregator = self.sessions[Peer.OPENER].aggregator
        if aggregator is not None:
            self.drivers[Peer.OPENER].take(MoveAsked(aggregator.opposite, "asked by a test"))

    async def oracle(self, engines: Mapping[Peer, Engine], *, degraded: frozenset[int] = frozenset()) -> list[int]:
        """The answer without any protocol: both ends' models are fed the settled tokens one by one.

        `degraded` positions take the opener's own guess.
        """
        requests = {peer: await each.engine_request(self.request) for peer, each in self.preparations.items()}
        request = self.request
        coupling = make_coupling(
            request.coupling,
            seed=request.seed,
            temperature=request.temperature,
            num_top_logprobs=None,
            constant_weight_levels={},
        )
        tokens: list[int] = []
        end_ids = engines[Peer.OPENER].vocabulary.end_ids
        async with (
            driven(engines[Peer.OPENER], requests[Peer.OPENER]) as opener,
            driven(engines[Peer.OTHER], requests[Peer.OTHER]) as other,
        ):
            while len(tokens) < request.max_tokens and not (tokens and tokens[-1] in end_ids):
                first = (await opener.fed(*tokens[-1:])).published
                second = (await other.fed(*tokens[-1:])).published
                if len(tokens) in degraded:
                    tokens.append(coupling.guesses(len(tokens), first, 1, Peer.OPENER)[0].token)
                    continue
                settled = coupling.settle(len(tokens), first, second)
                assert settled is not None
                tokens.append(settled.token)
        return tokens


def _open(asked: Asked, way: Way, preparation: Preparation) -> Open:
    return Open(
        version=PROTOCOL_VERSION,
        fingerprint=preparation.fingerprint,
        messages=asked.messages,
        temperature=asked.temperature,
        top_k=0,
        min_p=0.0,
        top_p=1.0,
        seed=asked.seed,
        max_tokens=asked.max_tokens,
        stop=(),
        coupling=CouplingKind.SHARED_NOISE,
        window=way.window,
        branches=way.branches,
        placement=way.placement,
        num_top_logprobs=None,
        deadline_seconds=100.0,
    )
