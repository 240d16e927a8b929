"""What every engine must refuse, free and survive: half of the contract, which `engine_contract` inherits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import pytest

from dragon_core.errors import CapacityError, EngineError, OurError, PromptTooLongError, RetryableError
from dragon_core.types import BranchId, Command, Context, Drop, Feed, Fork, Rollback
from dragon_runtime.interfaces import Engine
from tests.contracts.engine_sessions import (
    CONTEXT_LENGTH,
    MAIN,
    NUM_SEQUENCES,
    DrivenSession,
    assert_same,
    driven,
    fresh_steps,
    request_of,
    tokens_of,
)

SIDE = BranchId(1)
BAD_COMMANDS: dict[str, Callable[[int], Command]] = {
    "an unknown branch is fed": lambda _: Feed(90, BranchId(7), (1,)),
    "an unknown branch is forked": lambda _: Fork(BranchId(7), SIDE),
    "an unknown branch is rolled back": lambda _: Rollback(BranchId(7), 0),
    "an unknown branch is dropped": lambda _: Drop(BranchId(7)),
    "a branch is forked to one that is there": lambda _: Fork(MAIN, MAIN),
    "too many branches": lambda _: Fork(MAIN, BranchId(2)),
    "a token beyond the vocabulary": lambda num_vocabulary: Feed(90, MAIN, (1, num_vocabulary)),
    "a token below zero": lambda _: Feed(90, MAIN, (-1,)),
    "a ticket of the engine's own": lambda _: Feed(-1, MAIN, (1,)),
    "another one": lambda _: Feed(-2, MAIN, (1,)),
    "more tokens than were announced": lambda _: Feed(90, MAIN, (1,) * 96),
    "nothing is fed to a branch that holds tokens": lambda _: Feed(90, MAIN, ()),
    "a rollback into the prompt": lambda _: Rollback(MAIN, -1),
}


@runtime_checkable
class CheckedEngine(Protocol):
    """An engine that can tell whether something is left of its sessions."""

    def check_integrity(self) -> None: ...


class ClosableEngine(Engine, Protocol):
    """An engine as its owner sees it."""

    async def close(self) -> None:
        """Fail what is open; safe to call twice."""


class EngineLimitsContract:
    """Room, refusals and failures. The engine under test has `NUM_SEQUENCES` sequences, and nothing open."""

    @pytest.fixture
    def engine(self) -> AsyncIterator[ClosableEngine]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    async def nothing_is_left(self, engine: ClosableEngine) -> AsyncIterator[None]:
        """After each test, before the engine is closed."""
        yield
        if isinstance(engine, CheckedEngine):
            engine.check_integrity()

    # -- room -------------------------------------------------------------------------------------------------------

    async def test_dropped_branches_make_room_for_others(self, engine: ClosableEngine) -> None:
        request = request_of(engine, 9, 5, max_branches=2)
        token = tokens_of(engine, 7, 1)
        async with driven(engine, request) as session:
            for at in range(1, NUM_SEQUENCES + 2):
                session.submit(Fork(MAIN, BranchId(at)))
                last = await session.fed(*token, branch=BranchId(at))
                session.submit(Drop(BranchId(at)))
        assert_same(last, (await fresh_steps(engine, request, token))[-1])

    async def test_an_open_that_does_not_fit_is_refused_with_both_numbers(self, engine: ClosableEngine) -> None:
        async with driven(engine, request_of(engine, 9, 5, 4, max_branches=2)):
            with pytest.raises(CapacityError) as refusal:
                await DrivenSession.open(engine, request_of(engine, 9, 5, max_branches=2))
            assert (refusal.value.requested, refusal.value.available) == (4, 2)
            assert isinstance(refusal.value, RetryableError)
            assert refusal.value.retry_after_seconds > 0
            assert "4" in str(refusal.value)
            assert "2" in str(refusal.value)
            async with driven(engine, request_of(engine, 9, max_branches=2)):
                pass

    async def test_closing_frees_every_sequence_and_is_safe_twice(self, engine: ClosableEngine) -> None:
        request = request_of(engine, 9, 5, max_branches=NUM_SEQUENCES // 2)
        for _ in range(3):
            session = await DrivenSession.open(engine, request)
            session.submit(Fork(MAIN, SIDE))
            unwanted = session.feed(*tokens_of(engine, 7, 40))
            await session.close()
            await session.close()
            assert unwanted not in session.answers
            with pytest.raises(OurError, match="closed"):
                session.feed(3)

    async def test_sessions_open_while_others_prefill(self, engine: ClosableEngine) -> None:
        requests = [request_of(engine, length, seed=at) for at, length in enumerate((100, 3, 70))]
        sessions = await asyncio.gather(*(DrivenSession.open(engine, request) for request in requests))
        found = [await session.fed() for session in sessions]
        assert all(session.session.prefill_seconds >= 0 for session in sessions)
        for session in sessions:
            await session.close()
        for request, step in zip(requests, found, strict=True):
            assert_same(step, (await fresh_steps(engine, request, ()))[0])

    # -- what is refused --------------------------------------------------------------------------------------------

    async def test_a_prompt_that_is_too_long_names_both_lengths(self, engine: ClosableEngine) -> None:
        with pytest.raises(PromptTooLongError) as refusal:
            await DrivenSession.open(engine, request_of(engine, 5, CONTEXT_LENGTH - 95, max_tokens=96))
        assert (refusal.value.num_tokens, refusal.value.max_tokens) == (CONTEXT_LENGTH + 1, CONTEXT_LENGTH)
        assert str(CONTEXT_LENGTH + 1) in str(refusal.value)
        async with driven(engine, request_of(engine, 5, CONTEXT_LENGTH - 96, max_tokens=96)) as session:
            await session.fed(*tokens_of(engine, 7, 96))

    @pytest.mark.parametrize("prompts", [[()], [], [(1, -1)], [(1,), (2, 10**6)]])
    async def test_a_prompt_that_is_empty_or_beyond_the_vocabulary_is_refused(
        self, engine: ClosableEngine, prompts: list[tuple[int, ...]]
    ) -> None:
        sound = request_of(engine, 9)
        contexts = tuple(Context(tokens=tokens, relevance=0.5) for tokens in prompts)
        with pytest.raises(OurError):
            await DrivenSession.open(engine, replace(sound, contexts=contexts))
        async with driven(engine, request_of(engine, 4, max_branches=NUM_SEQUENCES)) as session:
            await session.fed()

    @pytest.mark.parametrize("bad", BAD_COMMANDS)
    async def test_a_bad_command_is_refused_and_harms_nobody(self, engine: ClosableEngine, bad: str) -> None:
        request, path = request_of(engine, 9, max_branches=2), tokens_of(engine, 7, 3)
        expected = await fresh_steps(engine, request, path)
        async with driven(engine, request) as session, driven(engine, request) as innocent:
            session.submit(Fork(MAIN, SIDE))
            first, same = session.feed(path[0]), innocent.feed(path[0])
            before = session.feed_of(path[1])
            unwanted = session.feed_of(path[2])
            with pytest.raises(OurError):
                session.submit(before, BAD_COMMANDS[bad](len(engine.vocabulary)), unwanted)
            assert_same(await session.answer(first), expected[1])
            assert_same(await innocent.answer(same), expected[1])
            # What came before the bad command was taken, what came after it was not.
            assert_same(await session.answer(before.ticket), expected[2])
            assert_same(await session.fed(path[2]), expected[3])
            assert_same(await innocent.fed(*path[1:]), expected[3])
            assert unwanted.ticket not in session.answers

    # -- what fails -------------------------------------------------------------------------------------------------

    async def test_a_closed_engine_fails_open_sessions_once(self, engine: ClosableEngine) -> None:
        sessions = [await DrivenSession.open(engine, request_of(engine, 9, seed=at)) for at in range(2)]
        sessions[0].feed(*tokens_of(engine, 7, 40))
        prefilling = asyncio.create_task(DrivenSession.open(engine, request_of(engine, 150)))
        await asyncio.sleep(0)
        await engine.close()
        await engine.close()
        with contextlib.suppress(EngineError):
            sessions.append(await prefilling)  # when its prompt was in place in time
        for session in sessions:
            assert isinstance(await session.failure(), EngineError)
        with pytest.raises(EngineError):
            await DrivenSession.open(engine, request_of(engine, 9))
        for session in sessions:
            await session.close()
            await session.close()
            assert len(session.failures) == 1

    async def test_an_open_that_is_given_up_frees_its_sequences(self, engine: ClosableEngine) -> None:
        everything = request_of(engine, 100, max_branches=NUM_SEQUENCES)
        for _ in range(3):
            opening = asyncio.create_task(DrivenSession.open(engine, everything))
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        async with driven(engine, everything) as session:
            await session.fed()
