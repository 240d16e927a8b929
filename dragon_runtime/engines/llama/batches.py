"""What one turn of an engine's thread decodes: a piece of one prompt, or one step of the sessions that have one.

Used from that thread only. Whose turn it is, and what becomes of a batch that failed, is `llama_engine`'s.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dragon_core.mixture import publish
from dragon_core.types import Cut, Feed, Sampling, Step, Weighting, WeightingRule
from dragon_runtime.engines.llama.branches import AHEAD, UNANSWERED
from dragon_runtime.engines.llama.memory import BATCH_TOKENS, LlamaSequences, Piece
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.llama.submitted import RunningFeed

SMOOTHING = 0.1
"""Weight of a new sample in `decode_seconds`."""
NUM_WARM_UP_STEPS = 8
RELEVANCE = Weighting(rule=WeightingRule.RELEVANCE)


@dataclass(frozen=True, slots=True)
class Answer:
    """The step that a feed of a session asked for."""

    session: LlamaSession
    feed: Feed
    step: Step


Running = list[tuple[LlamaSession, RunningFeed]]


class EngineObserver(Protocol):
    """What an engine's thread tells of its work, for metrics. Called on that thread."""

    def prefilled(self, num_tokens: int, *, seconds: float, waited_seconds: float) -> None:
        """A session's prompts are in place; it waited so long for its first piece."""

    def stepped(self, num_sequences: int, *, num_tokens: int, seconds: float) -> None:
        """A batch was decoded and published."""


class Batches:
    """Decodes and publishes. `on_batch` is told, before each decode, what is lost if it is dropped."""

    def __init__(
        self, memory: LlamaSequences, *, on_batch: Callable[[Running], None], observer: EngineObserver | None
    ) -> None:
        self._memory, self._on_batch, self._observer = memory, on_batch, observer
        self.decode_seconds = 0.0

    def prefill(self, session: LlamaSession) -> bool:
        """Decode one piece of a prompt, by itself: its shape must not depend on who else is there. True at the end."""
        piece = session.decoding.sequences.next_chunk()
        if piece is not None:
            self._on_batch([(session, RunningFeed(None))])
            session.decoding.prompt_logits += self._memory.decode([piece])
        if session.decoding.sequences.is_prefilling:
            return False
        session.decoding.first_step = session.decoding.publish(session.decoding.prompt_logits)
        session.decoding.prompt_logits.clear()
        return True

    def step(self, sessions: Collection[LlamaSession]) -> Iterator[Answer]:
        """Decode what these sessions have ready; the results come as they are published, one by one."""
        started = time.perf_counter()
        fed: list[tuple[LlamaSession, Feed, int]] = []
        pieces: list[Piece] = []
        running: Running = []
        for session in sessions:
            for feed in session.decoding.sequences.run_commands(self._memory):
                running.append((session, _running(session, feed)))
                if feed.tokens:
                    added = session.decoding.sequences.pieces(feed)
                    pieces += added
                    fed.append((session, feed, len(added)))
                elif session.decoding.first_step is not None:
                    yield Answer(session, feed, session.decoding.first_step)
        if not fed:
            return
        self._on_batch(running)
        logits = iter(self._decode(pieces))
        for session, feed, num_pieces in fed:
            if feed.ticket == UNANSWERED:
                continue
            made = session.decoding.publish(list(islice(logits, num_pieces)))
            if feed.ticket == AHEAD:
                session.decoding.sequences.set_ahead(feed.branch, made)
            else:
                yield Answer(session, feed, made)
        seconds = time.perf_counter() - started
        self.decode_seconds += SMOOTHING * (seconds - self.decode_seconds)
        if self._observer is not None:
            self._observer.stepped(len(pieces), num_tokens=sum(len(piece.tokens) for piece in pieces), seconds=seconds)

    def _decode(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """In as many batches as the library's limit makes of them."""
        logits: list[NDArray[np.float32]] = []
        batch: list[Piece] = []
        num_tokens = 0
        for piece in pieces:
            if num_tokens + len(piece.tokens) > BATCH_TOKENS:
                logits += self._memory.decode(batch)
                batch, num_tokens = [], 0
            batch.append(piece)
            num_tokens += len(piece.tokens)
        return logits + self._memory.decode(batch)

    def warm_up(self) -> None:
        """Decode a little, so that a first estimate of `decode_seconds` is there and memory is touched."""
        samples = []
        for position in range(NUM_WARM_UP_STEPS):
            started = time.perf_counter()
            logits = self._memory.decode([Piece(0, position, (position,), wants_logits=True)])
            publish(np.stack(logits), None, np.zeros(1), weighting=RELEVANCE, sampling=Sampling(), cut=Cut())
            samples.append(time.perf_counter() - started)
        self._memory.cut(0, 0)
        self.decode_seconds = sorted(samples)[len(samples) // 2]


def _running(session: LlamaSession, feed: Feed) -> RunningFeed:
    """What must become of a feed's branch for the feed not to be needed any more."""
    if session.decoding.sequences.is_copied(feed.branch):
        return RunningFeed(None)
    position = session.decoding.sequences.length(feed.branch) if feed.tokens else -1
    return RunningFeed(feed.branch, position, ahead=feed.tokens if feed.ticket == AHEAD else ())
