"""The thread of the llama.cpp engine: which batches are aborted, and what a batch that fails takes with it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dragon_core.errors import EngineError
from dragon_core.types import Fork, WeightingRule
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.memory import DecodeAborted, LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.models import bundled_model
from tests.contracts.engine_limits import SIDE
from tests.contracts.engine_sessions import (
    MAIN,
    NUM_SEQUENCES,
    DrivenSession,
    assert_same,
    driven,
    fresh_steps,
    request_of,
    tokens_of,
)
from tests.contracts.watched_engine import WatchedSequences, num_dropped, watched_engine

pytestmark = pytest.mark.integration

Watched = tuple[LlamaEngine, WatchedSequences]


@pytest.fixture
async def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Watched]:
    caplog.set_level(logging.DEBUG, logger="dragon_runtime")
    async with watched_engine(tmp_path) as (engine, memory):
        yield engine, memory


async def test_closing_in_mid_prefill_drops_the_running_piece_and_all_that_follow(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    engine, memory = watched
    memory.is_gated = True
    opening = asyncio.create_task(DrivenSession.open(engine, request_of(engine, 150)))
    await memory.arrived()
    opening.cancel()
    # The task's own cancellation was queued before this.
    asyncio.get_running_loop().call_soon(memory.open_gate)
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert memory.num_begun == 1
    assert num_dropped(caplog) == 1
    assert engine.num_free_sequences == NUM_SEQUENCES
    request = request_of(engine, 70)
    async with driven(engine, request) as session:
        assert_same(await session.fed(), (await fresh_steps(engine, request, ()))[0])


async def test_closing_while_its_step_runs_alone_aborts_it(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    engine, memory = watched
    request, path = request_of(engine, 9), tokens_of(engine, 7, 2)
    async with driven(engine, request) as session, driven(engine, request) as idle:
        memory.is_gated = True
        session.feed(path[0])
        await memory.arrived()
        asyncio.get_running_loop().call_soon(memory.open_gate)
        await session.close()
        assert num_dropped(caplog) == 1
        assert session.answers == {}
        assert_same(await idle.fed(*path), (await fresh_steps(engine, request, path))[-1])
        assert idle.failures == []


async def two_steps_in_one_batch(engine: LlamaEngine, memory: WatchedSequences) -> tuple[DrivenSession, DrivenSession]:
    """Two sessions whose one batch waits at the gate."""
    first, second = [await DrivenSession.open(engine, request_of(engine, 9, seed=seed)) for seed in (1, 2)]
    memory.is_gated = True
    first.feed(3)
    await memory.arrived()
    first.feed(4)
    second.feed(5)
    memory.let_go()
    await memory.arrived()
    return first, second


async def test_a_batch_is_not_aborted_while_another_session_has_a_part_in_it(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    engine, memory = watched
    first, second = await two_steps_in_one_batch(engine, memory)
    asyncio.get_running_loop().call_soon(memory.open_gate)
    await first.close()
    step = await second.answer(0)
    await second.close()
    assert num_dropped(caplog) == 0
    assert_same(step, (await fresh_steps(engine, request_of(engine, 9, seed=2), (5,)))[-1])


async def test_a_batch_that_nobody_waits_for_any_more_is_aborted(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    engine, memory = watched
    first, second = await two_steps_in_one_batch(engine, memory)
    closing = asyncio.gather(first.close(), second.close())
    asyncio.get_running_loop().call_soon(memory.open_gate)
    await closing
    assert num_dropped(caplog) == 1
    assert engine.num_free_sequences == NUM_SEQUENCES


async def test_closing_the_engine_aborts_what_runs(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    engine, memory = watched
    memory.is_gated = True
    opening = asyncio.create_task(DrivenSession.open(engine, request_of(engine, 150)))
    await memory.arrived()
    asyncio.get_running_loop().call_soon(memory.open_gate)
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await opening
    assert memory.num_begun == 1
    assert num_dropped(caplog) == 1


async def test_a_batch_that_fails_ends_its_sessions_once_and_no_others(watched: Watched) -> None:
    engine, memory = watched

    def fail(_: Sequence[Piece]) -> list[NDArray[np.float32]]:
        raise EngineError("no memory for this batch")

    request, path = request_of(engine, 9), tokens_of(engine, 7, 2)
    expected = await fresh_steps(engine, request, path)
    failing, idle = [await DrivenSession.open(engine, request) for _ in range(2)]
    memory.decode_instead = fail
    failing.feed(*path)
    assert "no memory" in str(await failing.failure())
    memory.decode_instead = None
    assert_same(await idle.fed(*path), expected[-1])
    await engine.close()
    assert "closed" in str(await idle.failure())
    assert (len(failing.failures), len(idle.failures)) == (1, 1)
    for session in (failing, idle):
        await session.close()


async def test_a_model_that_says_no_numbers_ends_the_session_and_not_the_engine(watched: Watched) -> None:
    engine, memory = watched
    request = request_of(engine, 9, rule=WeightingRule.EVIDENCE)
    num_vocabulary = len(engine.vocabulary)
    async with driven(engine, request) as session:
        memory.decode_instead = lambda pieces: [np.full(num_vocabulary, np.nan, dtype=np.float32) for _ in pieces]
        session.feed(3)
        assert "nan" in str(await session.failure())
    memory.decode_instead = None
    async with driven(engine, request) as session:
        await session.fed(3)


async def test_an_engine_is_checked_when_no_session_is_open(watched: Watched) -> None:
    engine, _ = watched
    engine.check_integrity()
    async with driven(engine, request_of(engine, 9)) as session:
        await session.fed()
        assert not engine.is_idle
        with pytest.raises(EngineError, match="1 sessions hold sequences"):
            engine.check_integrity()
    assert engine.is_idle
    engine.check_integrity()


async def test_a_sequence_that_was_not_emptied_is_found(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, memory = watched
    with monkeypatch.context() as broken:
        broken.setattr(memory, "cut", lambda _sequence, _position: None)
        async with driven(engine, request_of(engine, 9)) as session:
            await session.fed(*tokens_of(engine, 7, 2))
    with pytest.raises(EngineError, match=f"sequence {NUM_SEQUENCES - 1} is free and still holds 11 tokens"):
        engine.check_integrity()
    memory.cut(NUM_SEQUENCES - 1, 0)


async def test_a_sequence_that_is_lost_or_free_twice_is_found(watched: Watched) -> None:
    engine, _ = watched
    free = engine._free._free
    lost = free.pop()
    with pytest.raises(EngineError, match=rf"\[{lost}\] are missing and \[\] are too many"):
        engine.check_integrity()
    free += [lost, lost]
    with pytest.raises(EngineError, match=rf"\[\] are missing and \[{lost}\] are too many"):
        engine.check_integrity()
    free.pop()


async def test_a_session_that_the_thread_did_not_forget_is_found(watched: Watched) -> None:
    engine, _ = watched
    async with driven(engine, request_of(engine, 9, max_branches=2)) as session:
        session.submit(Fork(MAIN, SIDE))
        await session.fed(3)
        forgotten = session.session
    assert isinstance(forgotten, LlamaSession)
    forgotten.decoding.has_failed = True  # or the thread would go on with it
    forgotten.submitted.inbox.append(session.feed_of(4))
    engine._workload.add(forgotten)
    with pytest.raises(EngineError, match="1 commands of it wait, 1 of its feeds run, it has 2 branches"):
        engine.check_integrity()
    engine._workload._sessions.remove(forgotten)


async def test_a_running_decode_of_a_real_model_is_aborted_and_what_was_there_before_stays() -> None:
    model = LlamaModel(bundled_model())
    sequences = LlamaSequences(model, num_sequences=1, context_length=1024, num_threads=1)
    started = threading.Event()

    def decode_many() -> None:
        started.set()
        sequences.decode([Piece(0, 4, tuple(range(100, 600)), wants_logits=True)])

    expected = sequences.decode([Piece(0, 0, (5, 6, 7, 8), True), Piece(0, 4, (9,), True)])
    sequences.cut(0, 4)
    decoding = asyncio.create_task(asyncio.to_thread(decode_many))
    await asyncio.to_thread(started.wait)
    sequences.abort(is_wanted=True)
    with pytest.raises(DecodeAborted):
        await decoding
    sequences.abort(is_wanted=False)
    assert np.array_equal(sequences.decode([Piece(0, 4, (9,), True)])[0], expected[1])
    sequences.close()
    model.close()
