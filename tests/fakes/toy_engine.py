"""A deterministic language model over a tiny vocabulary: distributions are pure functions of the tokens before."""

import hashlib
from collections.abc import Sequence

import numpy as np

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
TOY_VOCABULARY = Vocabulary(
    token_bytes=(b"", *(f" w{i}".encode() for i in range(1, 24))),
    special_ids=frozenset({END}),
    end_ids=frozenset({END}),
)


def toy_logits(context: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """Logits (V,) float32: what all contexts share, and a smaller part of the context's own."""

    def drawn(*key: object) -> np.ndarray:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "little")).normal(size=len(TOY_VOCABULARY))

    shared, own = drawn("shared", tuple(answer)), drawn("own", tuple(context), tuple(answer))
    logits = 2.5 * shared + 1.2 * own
    logits[END] -= 3.0
    return np.asarray(logits.astype(np.float32))


class ToySequences:
    """The sequences of one session: the commands of an engine, answered at once."""

    def __init__(self, contexts: tuple[Context, ...], weighting: Weighting, sampling: Sampling, cut: Cut) -> None:
        self._contexts = contexts
        self._weighting, self._sampling, self._cut = weighting, sampling, cut
        self._branches: dict[BranchId, list[int]] = {BranchId(0): []}

    @property
    def num_branches(self) -> int:
        return len(self._branches)

    def apply(self, command: Command) -> Step | None:
        """Run one command; a feed answers with its step."""
        match command:
            case Feed(_, branch, tokens):
                answer = self._branches[branch]
                if not tokens and answer:
                    raise AssertionError("an empty feed on a branch that has tokens")
                answer.extend(tokens)
                return self.step_after(answer)
            case Fork(source, branch):
                assert branch not in self._branches
                self._branches[branch] = list(self._branches[source])
            case Rollback(branch, position):
                del self._branches[branch][position:]
            case Drop(branch):
                del self._branches[branch]
        return None

    def step_after(self, answer: Sequence[int]) -> Step:
        """The published mixture after `answer`: the oracle of every test."""
        return publish(
            np.stack([toy_logits(context.tokens, answer) for context in self._contexts]),
            toy_logits((), answer) if self._weighting.rule.needs_bare_prompt else None,
            np.array([context.relevance for context in self._contexts]),
            weighting=self._weighting,
            sampling=self._sampling,
            cut=self._cut,
        )
