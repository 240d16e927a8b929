"""Steps that an engine of listeners elsewhere makes before they are asked for: never other ones, never too many."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dragon_core.types import BranchId, Drop, Feed, Fork, Rollback, Step
from dragon_runtime.engines.llama.batches import Answer
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.engines.publishing import drafted_token
from dragon_runtime.interfaces import EngineRequest
from tests.contracts.engine_sessions import MAIN, DrivenSession, assert_same, fresh_steps, request_of, tokens_of
from tests.contracts.watched_engine import WatchedSequences, engine_of_listeners_elsewhere, num_dropped

pytestmark = pytest.mark.integration

MAX_TOKENS = 24
SIDE = BranchId(1)


class Ahead:
    """A session that drafts, after its first answer: its draft is decoded, or gated, about to be."""

    def __init__(self, engine: LlamaEngine, memory: WatchedSequences) -> None:
        self.engine, self.memory = engine, memory
        self.request: EngineRequest = request_of(engine, 9, max_branches=2, max_tokens=MAX_TOKENS, draft_seed=3)
        self.session = DrivenSession()
        self.path: tuple[int, ...] = ()
        self.draft, self.other = -1, self.other_than(-1)

    async def open(self, *, is_gated: bool) -> None:
        self.session = await DrivenSession.open(self.engine, self.request)
        self.memory.is_gated = is_gated
        await self.follow(self.session.feed())
        if is_gated:
            await self.memory.arrived()
        else:
            await self.settled()

    async def settled(self) -> int:
        """Wait until no decode was begun for a while; how many there were."""
        for _ in range(1000):
            before = self.memory.num_begun
            await asyncio.sleep(0.05)
            if before == self.memory.num_begun and not self.engine.is_busy:
                return before
        raise AssertionError("the engine does not come to rest")

    def other_than(self, draft: int) -> int:
        return next(token for token in tokens_of(self.engine, 7, 8) if token != draft)

    async def follow(self, ticket: int, *tokens: int) -> None:
        """The answer to what was fed must be a fresh session's; its draft is what may be asked for next."""
        self.path += tokens
        step = await self.session.answer(ticket)
        if not self.memory.is_gated:
            await self.require_fresh(step, self.path)
        draft = drafted_token(self.request, len(self.path), step)
        assert draft is not None
        self.draft, self.other = draft, self.other_than(draft)

    async def fresh(self, path: Sequence[int]) -> list[Step]:
        """What a session says that no step is made ahead for."""
        return await fresh_steps(self.engine, replace(self.request, draft_seed=None), path)

    async def require_fresh(self, step: Step, path: tuple[int, ...]) -> None:
        assert_same(step, (await self.fresh(path))[-1])


@pytest.fixture
async def ahead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Ahead]:
    caplog.set_level(logging.DEBUG, logger="dragon_runtime.engines.llama")
    async with engine_of_listeners_elsewhere(tmp_path) as (engine, memory):
        ahead = Ahead(engine, memory)
        yield ahead
        memory.open_gate()
        if ahead.session._session is not None:
            await ahead.session.close()
        assert ahead.session.mistakes == []


async def test_a_whole_answer_of_drafts_takes_one_decode_a_token(ahead: Ahead) -> None:
    """The last token needs none: nobody asks what follows it."""
    before = ahead.memory.num_begun
    ahead.session = await DrivenSession.open(ahead.engine, ahead.request)
    steps = [await ahead.session.fed()]
    path: list[int] = []
    while len(path) < MAX_TOKENS - 1:
        draft = drafted_token(ahead.request, len(path), steps[-1])
        assert draft is not None
        path.append(draft)
        steps.append(await ahead.session.fed(draft))
    num_decodes = await ahead.settled()
    assert num_decodes - before == 1 + MAX_TOKENS - 1
    for found, expected in zip(steps, await ahead.fresh(path), strict=True):
        assert_same(found, expected)


async def test_the_draft_is_decoded_before_it_is_asked_for(ahead: Ahead) -> None:
    await ahead.open(is_gated=True)  # the gate is reached: nobody asked
    ahead.memory.open_gate()
    before = await ahead.settled()
    ahead.memory.is_gated = True
    ticket = ahead.session.feed(ahead.draft)
    await ahead.session.answer(ticket)  # though no decode may go on
    await ahead.memory.arrived()
    assert ahead.memory.num_begun == before + 1
    ahead.memory.open_gate()
    await ahead.follow(ticket, ahead.draft)


async def test_a_draft_that_is_asked_for_while_it_is_decoded_goes_on(
    ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    await ahead.open(is_gated=True)
    draft, ticket = ahead.draft, ahead.session.feed(ahead.draft)
    ahead.memory.open_gate()
    await ahead.follow(ticket, draft)
    assert num_dropped(caplog) == 0


@pytest.mark.parametrize("is_decoded", [True, False])
async def test_another_token_than_the_draft_undoes_it(
    ahead: Ahead, caplog: pytest.LogCaptureFixture, is_decoded: bool
) -> None:
    await ahead.open(is_gated=not is_decoded)
    other, ticket = ahead.other, ahead.session.feed(ahead.other)
    ahead.memory.open_gate()
    await ahead.follow(ticket, other)
    await ahead.follow(ahead.session.feed(ahead.draft, ahead.other), ahead.draft, ahead.other)
    assert num_dropped(caplog) == (0 if is_decoded else 1)


@pytest.mark.parametrize("is_decoded", [True, False])
async def test_a_draft_that_is_asked_for_and_rolled_back_leaves_nothing(
    ahead: Ahead, caplog: pytest.LogCaptureFixture, is_decoded: bool
) -> None:
    await ahead.open(is_gated=not is_decoded)
    asked, wanted = ahead.session.feed_of(ahead.draft), ahead.session.feed_of(ahead.other)
    ahead.session.submit(asked, Rollback(MAIN, 0), wanted)
    ahead.memory.open_gate()
    await ahead.follow(wanted.ticket, ahead.other)
    assert asked.ticket not in ahead.session.answers
    assert num_dropped(caplog) == (0 if is_decoded else 1)


async def test_empty_feeds_ask_for_no_draft_and_leave_what_runs_as_it_is(ahead: Ahead) -> None:
    ahead.memory.is_gated = True
    ahead.session = await _opened(ahead)
    ahead.session.submit(Fork(MAIN, SIDE), ahead.session.feed_of(ahead.other, branch=SIDE))
    await ahead.memory.arrived()
    empty = [ahead.session.feed_of() for _ in range(40)]
    ahead.session.submit(*empty)
    assert isinstance(ahead.session.session, LlamaSession)
    assert len(ahead.session.session.submitted.running) == 1
    ahead.memory.open_gate()
    for feed in empty:
        await ahead.require_fresh(await ahead.session.answer(feed.ticket), ())


@pytest.mark.parametrize("is_decoded", [True, False])
async def test_a_copy_is_made_without_the_draft_which_goes_on(
    ahead: Ahead, caplog: pytest.LogCaptureFixture, is_decoded: bool
) -> None:
    await ahead.open(is_gated=not is_decoded)
    main, side = ahead.session.feed_of(ahead.draft), ahead.session.feed_of(ahead.other, branch=SIDE)
    ahead.session.submit(Fork(MAIN, SIDE), main, side)
    ahead.memory.open_gate()
    for feed in (main, side):
        await ahead.require_fresh(await ahead.session.answer(feed.ticket), feed.tokens)
    assert num_dropped(caplog) == 0


@pytest.mark.parametrize("is_drafted", [True, False])
async def test_what_is_asked_for_at_once_waits_for_no_draft(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch, is_drafted: bool
) -> None:
    """The listener answers on the engine's thread, so that its commands are there when the draft would be decoded."""

    def deliver(answers: Sequence[Answer]) -> None:
        for answer in answers:
            answer.session.deliver(answer.feed.ticket, answer.step)

    monkeypatch.setattr(ahead.engine._deliveries, "deliver", deliver)
    loop, found = asyncio.get_running_loop(), asyncio.Queue[tuple[Feed, Step, int]]()
    asked: dict[int, Feed] = {}

    def on_step(ticket: int, step: Step) -> None:
        if ticket == 0:
            draft = drafted_token(ahead.request, 0, step)
            assert draft is not None
            first = draft if is_drafted else ahead.other_than(draft)
            asked[1], asked[2] = Feed(1, MAIN, (first,)), Feed(2, SIDE, (draft,))
            session.submit([Fork(MAIN, SIDE), asked[1], asked[2]])
        else:
            loop.call_soon_threadsafe(found.put_nowait, (asked[ticket], step, ahead.memory.num_begun))

    session = await LlamaEngine.open(ahead.engine, ahead.request, on_step=on_step, on_failure=print)
    session.submit([Feed(0, MAIN, ())])
    answers = [await found.get() for _ in range(2)]
    await session.close()
    for feed, step, num_begun in answers:
        assert num_begun == 2  # the prompt, and one batch of both branches
        await ahead.require_fresh(step, feed.tokens)


async def test_a_draft_of_a_branch_that_is_dropped_is_aborted(ahead: Ahead, caplog: pytest.LogCaptureFixture) -> None:
    await ahead.open(is_gated=False)
    side = ahead.session.feed_of(ahead.other, branch=SIDE)
    ahead.session.submit(Fork(MAIN, SIDE), side)
    step = await ahead.session.answer(side.ticket)
    await ahead.settled()
    await ahead.require_fresh(step, (ahead.other,))
    ahead.memory.is_gated = True
    again = ahead.session.feed(drafted_token(ahead.request, 1, step) or 0, branch=SIDE)
    await ahead.session.answer(again)
    await ahead.memory.arrived()
    ahead.session.submit(Drop(SIDE))
    ahead.memory.open_gate()
    await ahead.follow(ahead.session.feed(ahead.other), ahead.other)
    assert num_dropped(caplog) == 1


@pytest.mark.parametrize("change", [{"draft_seed": None}, {"max_tokens": 1}], ids=["no seed", "last token"])
async def test_what_cannot_be_known_or_used_is_not_decoded(ahead: Ahead, change: dict[str, int | None]) -> None:
    ahead.request = replace(ahead.request, **change)  # type: ignore[arg-type]
    ahead.session = await DrivenSession.open(ahead.engine, ahead.request)
    before = ahead.memory.num_begun
    await ahead.session.fed()
    assert await ahead.settled() == before


async def _opened(ahead: Ahead) -> DrivenSession:
    """With its prompt in place, which the gate let through."""
    opening = asyncio.create_task(DrivenSession.open(ahead.engine, ahead.request))
    await ahead.memory.arrived()
    ahead.memory.let_go()
    return await opening
