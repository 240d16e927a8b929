"""What one turn of an engine's thread decodes, as values: a piece of one prompt, a step of the sessions that have one.

Used from that thread only. Whose turn it is, and what becomes of a batch that failed, is `thread`'s.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dragon_core.types import Feed, Step
from dragon_runtime.engines.llama.branches import AHEAD, UNANSWERED
from dragon_runtime.engines.llama.memory import BATCH_TOKENS, LlamaSequences, Piece
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.llama.submitted import RunningFeed

Logits = list[NDArray[np.float32]]
Running = list[tuple[LlamaSession, RunningFeed]]
"""What each session loses when a batch is dropped."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The step that a feed of a session asked for."""

    session: LlamaSession
    feed: Feed
    step: Step


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A piece of one prompt, by itself: its shape must not depend on who else is there."""

    session: LlamaSession
    pieces: Sequence[Piece]
    running: Running

    @classmethod
    def of(cls, session: LlamaSession) -> "PromptPiece":
        """The next one of a session."""
        decoding = session.decoding
        if decoding.prefill_started_at is None:
            decoding.prefill_started_at = time.perf_counter()
        piece = decoding.sequences.next_chunk()
        return cls(session, [] if piece is None else [piece], [(session, RunningFeed(None))])

    def publish(self, logits: Logits) -> bool:
        """Keep what was decoded; whether the session's prompts are in place now, with the step after them."""
        decoding = self.session.decoding
        decoding.prompt_logits += logits
        if decoding.sequences.is_prefilling:
            return False
        decoding.first_step = decoding.publish(decoding.prompt_logits)
        decoding.prompt_logits.clear()
        return True


@dataclass(frozen=True, slots=True)
class _Fed:
    """A feed with tokens, and how many pieces it is: one per sequence of its branch."""

    session: LlamaSession
    feed: Feed
    num_pieces: int


@dataclass(frozen=True, slots=True)
class Steps:
    """One step of every session that has one ready. `answered` need no decode: they are of feeds without tokens."""

    started_at: float
    pieces: Sequence[Piece]
    running: Running
    fed: Sequence[_Fed]
    answered: Sequence[Answer]

    @classmethod
    def of(cls, sessions: Collection[LlamaSession], memory: LlamaSequences) -> "Steps":
        """Run the commands of these sessions up to their next feeds."""
        started_at = time.perf_counter()
        pieces: list[Piece] = []
        running: Running = []
        fed: list[_Fed] = []
        answered: list[Answer] = []
        for session in sessions:
            decoding = session.decoding
            for feed in decoding.sequences.run_commands(memory):
                running.append((session, _running(session, feed)))
                if feed.tokens:
                    added = decoding.sequences.pieces(feed)
                    pieces += added
                    fed.append(_Fed(session, feed, len(added)))
                elif decoding.first_step is not None:
                    answered.append(Answer(session, feed, decoding.first_step))
        return cls(started_at, pieces, running, fed, answered)

    def publish(self, logits: Logits) -> list[Answer]:
        """Mix, cut and quantise what was decoded; what nobody asked for so far stays with its branch."""
        answers = list(self.answered)
        rows = iter(logits)
        for each in self.fed:
            if each.feed.ticket == UNANSWERED:
                continue
            step = each.session.decoding.publish(list(islice(rows, each.num_pieces)))
            if each.feed.ticket == AHEAD:
                each.session.decoding.sequences.set_ahead(each.feed.branch, step)
            else:
                answers.append(Answer(each.session, each.feed, step))
        return answers


def _running(session: LlamaSession, feed: Feed) -> RunningFeed:
    """What must become of a feed's branch for the feed not to be needed any more."""
    sequences = session.decoding.sequences
    if sequences.is_copied(feed.branch):
        return RunningFeed(None)
    position = sequences.length(feed.branch) if feed.tokens else -1
    return RunningFeed(feed.branch, position, ahead=feed.tokens if feed.ticket == AHEAD else ())


def decode(memory: LlamaSequences, pieces: Sequence[Piece]) -> Logits:
    """In as many of the library's batches as its limit makes of them."""
    logits: Logits = []
    batch: list[Piece] = []
    num_tokens = 0
    for piece in pieces:
        if num_tokens + len(piece.tokens) > BATCH_TOKENS:
            logits += memory.decode(batch)
            batch, num_tokens = [], 0
        batch.append(piece)
        num_tokens += len(piece.tokens)
    return logits + memory.decode(batch)
