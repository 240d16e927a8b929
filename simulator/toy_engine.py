"""A deterministic language model over a tiny vocabulary: distributions are pure functions of the tokens before."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_core.mixture import publish
from dragon_core.types import (
    BranchId,
    Command,
    Context,
    Cut,
    Drop,
    Feed,
    Fork,
    Rollback,
    Sampling,
    Step,
    Vocabulary,
    Weighting,
)

END = 0
END_PENALTY = 3.0
"""How much less likely (nat) the end is than another token: answers of some dozens of tokens."""
TOY_VOCABULARY = Vocabulary(
    token_bytes=(b"", *(f" w{i}".encode() for i in range(1, 24))),
    special_ids=frozenset({END}),
    end_ids=frozenset({END}),
)


@functools.lru_cache(maxsize=100_000)
def _drawn(*key: object) -> NDArray[np.float64]:
    """Values (V,) of a logistic distribution, a function of `key` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=2 * len(TOY_VOCABULARY)).digest()
    uniform = (np.frombuffer(digest, dtype="<u2") + 0.5) / 2**16
    values: NDArray[np.float64] = 0.55 * np.log(uniform / (1.0 - uniform))
    values.flags.writeable = False
    return values


def toy_logits(context: Sequence[int], answer: Sequence[int], end_penalty: float = END_PENALTY) -> NDArray[np.float32]:
    """Logits (V,) float32: what all contexts share, and a smaller part of the context's own."""
    logits = 2.5 * _drawn("shared", tuple(answer)) + 1.2 * _drawn("own", tuple(context), tuple(answer))
    logits[END] -= end_penalty
    return logits.astype(np.float32)


@functools.lru_cache(maxsize=20_000)
def toy_step(
    contexts: tuple[Context, ...],
    weighting: Weighting,
    sampling: Sampling,
    cut: Cut,
    end_penalty: float,
    answer: tuple[int, ...],
) -> Step:
    """The published mixture after `answer`: the oracle of every test."""
    return publish(
        np.stack([toy_logits(context.tokens, answer, end_penalty) for context in contexts]),
        toy_logits((), answer, end_penalty) if weighting.rule.needs_bare_prompt else None,
        np.array([context.relevance for context in contexts]),
        weighting=weighting,
        sampling=sampling,
        cut=cut,
    )


class ToySequences:
    """The sequences of one session: the commands of an engine, answered at once.

    A command that breaks the engine's contract is an AssertionError. Limits are only checked where given.
    """

    def __init__(
        self,
        contexts: tuple[Context, ...],
        weighting: Weighting,
        sampling: Sampling,
        cut: Cut,
        *,
        max_branches: int = 1024,
        max_tokens: int = 1_000_000,
        end_penalty: float = END_PENALTY,
    ) -> None:
        self._contexts = contexts
        self._weighting, self._sampling, self._cut = weighting, sampling, cut
        self._max_branches, self._max_tokens, self._end_penalty = max_branches, max_tokens, end_penalty
        self.branches: dict[BranchId, list[int]] = {BranchId(0): []}
        self._tickets: set[int] = set()
        self._wanted: dict[int, tuple[BranchId, int]] = {}

    def is_wanted(self, ticket: int) -> bool:
        """Whether the tokens of a feed are still there: an engine may leave other tickets unanswered."""
        return ticket in self._wanted

    @property
    def num_branches(self) -> int:
        return len(self.branches)

    def apply(self, command: Command) -> Step | None:
        """Run one command; a feed answers with its step."""
        match command:
            case Feed(ticket, branch, tokens):
                return self._feed(ticket, branch, tokens)
            case Fork(source, branch):
                assert source in self.branches, f"a copy of branch {source}, which is not there"
                assert branch not in self.branches, f"branch {branch} is made twice"
                assert len(self.branches) < self._max_branches, f"more than {self._max_branches} branches"
                self.branches[branch] = list(self.branches[source])
            case Rollback(branch, position):
                assert branch in self.branches, f"a rollback of branch {branch}, which is not there"
                assert position <= len(self.branches[branch]), "a rollback to tokens that were never fed"
                del self.branches[branch][position:]
                self._forget(branch, after=position)
            case Drop(branch):
                assert branch in self.branches, f"branch {branch} is dropped and not there"
                del self.branches[branch]
                self._forget(branch, after=-1)
        return None

    def _feed(self, ticket: int, branch: BranchId, tokens: tuple[int, ...]) -> Step:
        assert branch in self.branches, f"a feed to branch {branch}, which is not there"
        assert ticket not in self._tickets, f"ticket {ticket} is used twice"
        answer = self.branches[branch]
        assert tokens or not answer, "an empty feed on a branch that has tokens"
        assert all(0 <= token < len(TOY_VOCABULARY) for token in tokens), "a token beyond the vocabulary"
        assert len(answer) + len(tokens) <= self._max_tokens, f"an answer of more than {self._max_tokens} tokens"
        self._tickets.add(ticket)
        answer.extend(tokens)
        self._wanted[ticket] = branch, len(answer)
        return self.step_after(answer)

    def _forget(self, branch: BranchId, *, after: int) -> None:
        self._wanted = {t: (at, end) for t, (at, end) in self._wanted.items() if at != branch or end <= after}

    def step_after(self, answer: Sequence[int]) -> Step:
        """The published mixture after `answer`, whatever the branches hold."""
        return toy_step(self._contexts, self._weighting, self._sampling, self._cut, self._end_penalty, tuple(answer))
