"""Engine sessions as tests drive them: feeds that can be awaited, and what a session that did nothing else says."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from dragon_core.types import BranchId, Command, Context, Cut, Feed, Sampling, Step, Weighting, WeightingRule
from dragon_runtime.interfaces import Engine, EngineRequest, EngineSession

NUM_SEQUENCES = 8
"""What every engine under test is opened with."""
CONTEXT_LENGTH = 256
MAIN = BranchId(0)


def tokens_of(engine: Engine, seed: int, length: int) -> tuple[int, ...]:
    """Tokens of the vocabulary that are not special, the same for the same seed."""
    vocabulary = engine.vocabulary
    drawn = np.random.default_rng(seed).integers(len(vocabulary), size=4 * length + 16).tolist()
    return tuple([token for token in drawn if token not in vocabulary.special_ids][:length])


def request_of(
    engine: Engine,
    *prompt_lengths: int,
    seed: int = 0,
    rule: WeightingRule = WeightingRule.RELEVANCE,
    temperature: float = 0.7,
    cut: Cut | None = None,
    max_branches: int = 1,
    max_tokens: int = 96,
    draft_seed: int | None = None,
) -> EngineRequest:
    """Contexts of drawn tokens, the first the most relevant."""
    contexts = tuple(
        Context(tokens=tokens_of(engine, 100 * seed + at, length), relevance=0.6 - 0.1 * at)
        for at, length in enumerate(prompt_lengths)
    )
    return EngineRequest(
        contexts=contexts,
        bare_prompt=tokens_of(engine, 100 * seed + 50, 7) if rule.needs_bare_prompt else None,
        weighting=Weighting(rule=rule),
        sampling=Sampling(temperature=temperature),
        cut=cut or Cut(),
        max_branches=max_branches,
        max_tokens=max_tokens,
        draft_seed=draft_seed,
    )


class DrivenSession:
    """An engine session with its answers. `unwanted` tickets must not be answered any more; `mistakes` were."""

    def __init__(self) -> None:
        self.answers: dict[int, Step] = {}
        self.failures: list[Exception] = []
        self.unwanted: set[int] = set()
        self.mistakes: list[int] = []
        self._tickets = itertools.count()
        self._changed = asyncio.Event()
        self._session: EngineSession | None = None

    @classmethod
    async def open(cls, engine: Engine, request: EngineRequest) -> "DrivenSession":
        """Wait until the prompts are in place."""
        driven = cls()
        driven._session = await engine.open(request, on_step=driven._on_step, on_failure=driven._on_failure)
        return driven

    @property
    def session(self) -> EngineSession:
        assert self._session is not None
        return self._session

    def _on_step(self, ticket: int, step: Step) -> None:
        if ticket in self.unwanted or ticket in self.answers:
            self.mistakes.append(ticket)
        self.answers[ticket] = step
        self._changed.set()

    def _on_failure(self, error: Exception) -> None:
        self.failures.append(error)
        self._changed.set()

    def submit(self, *commands: Command) -> None:
        self.session.submit(commands)

    def feed_of(self, *tokens: int, branch: BranchId = MAIN) -> Feed:
        """A feed with a ticket of its own, not submitted."""
        return Feed(next(self._tickets), branch, tokens)

    def feed(self, *tokens: int, branch: BranchId = MAIN) -> int:
        """Submit a feed; its ticket."""
        feed = self.feed_of(*tokens, branch=branch)
        self.submit(feed)
        return feed.ticket

    async def answer(self, ticket: int) -> Step:
        """Wait for a ticket's answer, or for the failure that it will never come for."""
        while ticket not in self.answers:
            if self.failures:
                raise self.failures[0]
            self._changed.clear()
            await self._changed.wait()
        return self.answers[ticket]

    async def failure(self) -> Exception:
        """Wait until the engine gives the session up."""
        while not self.failures:
            self._changed.clear()
            await self._changed.wait()
        return self.failures[0]

    async def fed(self, *tokens: int, branch: BranchId = MAIN) -> Step:
        """Feed and wait."""
        return await self.answer(self.feed(*tokens, branch=branch))

    async def close(self) -> None:
        await self.session.close()


@asynccontextmanager
async def driven(engine: Engine, request: EngineRequest) -> AsyncIterator[DrivenSession]:
    """A session for as long as the scope lasts."""
    session = await DrivenSession.open(engine, request)
    try:
        yield session
    finally:
        await session.close()


async def fresh_steps(engine: Engine, request: EngineRequest, tokens: Sequence[int]) -> list[Step]:
    """The oracle: after the prompt and after each token, of a new session that is fed them one by one."""
    async with driven(engine, request) as session:
        return [await session.fed()] + [await session.fed(token) for token in tokens]


def assert_same(found: Step, expected: Step) -> None:
    """Bit by bit, shares included."""
    assert found.published == expected.published
    assert np.array_equal(found.context_shares, expected.context_shares)
