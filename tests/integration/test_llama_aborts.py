"""Steps that are undone while they run: aborted when nothing needs them any more, and only then."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragon_core.types import Command, Drop, Fork, Rollback, Step
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.interfaces import EngineRequest
from tests.contracts.engine_limits import SIDE
from tests.contracts.engine_sessions import MAIN, DrivenSession, assert_same, driven, fresh_steps, request_of, tokens_of
from tests.contracts.watched_engine import WatchedSequences, num_dropped, watched_engine

pytestmark = pytest.mark.integration

FIRST, SECOND = 40, 41
PATH = (50, 51, 52)


class Running:
    """A session whose `commands` are being run: its first batch waits at the gate."""

    def __init__(self, engine: LlamaEngine, memory: WatchedSequences, session: DrivenSession) -> None:
        self.engine, self.memory, self.session = engine, memory, session
        self.request: EngineRequest = request_of(engine, 9, max_branches=2)

    async def start(self, *commands: Command) -> None:
        self.memory.is_gated = True
        self.session.submit(*commands)
        await self.memory.arrived()

    def undo(self, *commands: Command) -> None:
        """Submit while the batch waits, then let it go."""
        self.session.submit(*commands)
        self.memory.open_gate()

    async def fresh(self, *tokens: int) -> Step:
        return (await fresh_steps(self.engine, self.request, tokens))[-1]


@pytest.fixture
async def running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    caplog.set_level(logging.DEBUG, logger="dragon_runtime")
    async with watched_engine(tmp_path) as (engine, memory):
        session = await DrivenSession.open(engine, request_of(engine, 9, max_branches=2))
        yield Running(engine, memory, session)
        memory.open_gate()
        await session.close()


async def test_a_step_that_is_rolled_back_is_aborted_and_leaves_nothing(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    session = running.session
    unwanted = session.feed_of(FIRST)
    await running.start(unwanted)
    wanted = session.feed_of(SECOND)
    running.undo(Rollback(MAIN, 0), wanted)
    assert_same(await session.answer(wanted.ticket), await running.fresh(SECOND))
    assert num_dropped(caplog) == 1
    assert unwanted.ticket not in session.answers


async def test_a_step_that_is_rolled_back_in_part_goes_on(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    session = running.session
    await running.start(session.feed_of(*PATH))
    wanted = session.feed_of(SECOND)
    running.undo(Rollback(MAIN, 1), wanted)
    assert_same(await session.answer(wanted.ticket), await running.fresh(PATH[0], SECOND))
    assert num_dropped(caplog) == 0


@pytest.mark.parametrize("undoing", [Rollback(MAIN, 0), Drop(MAIN)], ids=["rolled back", "dropped"])
@pytest.mark.parametrize("is_asked_before", [True, False])
async def test_a_step_that_a_copy_waits_for_goes_on(
    running: Running, caplog: pytest.LogCaptureFixture, is_asked_before: bool, undoing: Command
) -> None:
    """The copy needs what the original was fed, whatever becomes of the original."""
    session = running.session
    copy, wanted = Fork(MAIN, SIDE), session.feed_of(SECOND, branch=SIDE)
    if is_asked_before:
        await running.start(session.feed_of(FIRST), copy)
        running.undo(undoing, wanted)
    else:
        await running.start(session.feed_of(FIRST))
        running.undo(copy, undoing, wanted)
    assert_same(await session.answer(wanted.ticket), await running.fresh(FIRST, SECOND))
    assert num_dropped(caplog) == 0


async def test_the_answer_to_an_empty_feed_outlives_the_batch_it_came_with(running: Running) -> None:
    session = running.session
    empty = session.feed_of()
    await running.start(Fork(MAIN, SIDE), session.feed_of(FIRST, branch=SIDE), empty)
    running.undo(Rollback(MAIN, 0), Drop(SIDE))
    assert_same(await session.answer(empty.ticket), await running.fresh())


async def test_a_step_beside_anothers_goes_on(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    session, engine = running.session, running.engine
    async with driven(engine, running.request) as other:
        await running.start(session.feed_of(FIRST))
        # Both wait for the batch that runs, and are the next one together.
        undone, wanted = session.feed_of(SECOND), other.feed_of(FIRST)
        session.submit(undone)
        other.submit(wanted)
        running.memory.let_go()
        await running.memory.arrived()
        running.undo(Rollback(MAIN, 1))
        assert_same(await other.answer(wanted.ticket), await running.fresh(FIRST))
        assert undone.ticket not in session.answers
        again = session.feed(SECOND)
        assert_same(await session.answer(again), await running.fresh(FIRST, SECOND))
    assert num_dropped(caplog) == 0


async def test_many_tokens_that_are_rolled_back_between_their_batches_leave_nothing(running: Running) -> None:
    session, path = running.session, tokens_of(running.engine, 7, 80)
    await running.start(session.feed_of(*path))
    running.memory.let_go()
    await running.memory.arrived()
    wanted = session.feed_of(SECOND)
    running.undo(Rollback(MAIN, 32), wanted)
    assert_same(await session.answer(wanted.ticket), await running.fresh(*path[:32], SECOND))


async def test_a_copy_that_was_asked_for_before_the_batch_began_is_heeded(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    session, memory = running.session, running.memory
    await running.start(session.feed_of(FIRST))
    session.feed(SECOND)
    opening = asyncio.create_task(DrivenSession.open(running.engine, request_of(running.engine, 9, seed=1)))
    await asyncio.sleep(0)
    memory.let_go()
    await memory.arrived()  # with the other's prompt, before the second feed, which is queued already
    session.submit(Fork(MAIN, SIDE))
    memory.let_go()
    await memory.arrived()
    wanted = session.feed_of(*PATH, branch=SIDE)
    running.undo(Rollback(MAIN, 1), wanted)
    assert_same(await session.answer(wanted.ticket), await running.fresh(FIRST, SECOND, *PATH))
    assert num_dropped(caplog) == 0
    await (await opening).close()
