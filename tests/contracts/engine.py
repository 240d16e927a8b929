"""What every engine must do, as one suite: a test class of an engine inherits it and gives the `engine` fixture.

The engine under test has `NUM_SEQUENCES` sequences of `CONTEXT_LENGTH` tokens, and nothing open.
"""

from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest

from dragon_core.distribution import quantise_weight
from dragon_core.types import BranchId, Cut, Drop, FloatArray, Fork, Rollback, Step, WeightingRule
from dragon_core.weighting import constant_weight, log_sum_exp
from dragon_runtime.interfaces import Engine, EngineRequest
from tests.contracts.engine_interleavings import Interleaving
from tests.contracts.engine_limits import ClosableEngine, EngineLimitsContract
from tests.contracts.engine_sessions import MAIN, assert_same, driven, fresh_steps, request_of, tokens_of

SIDE = BranchId(1)


class EngineContract(EngineLimitsContract):
    """The whole suite."""

    num_interleavings = 10

    # -- what a step is ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("rule", WeightingRule)
    @pytest.mark.parametrize("temperature", [0.0, 0.7])
    async def test_a_step_is_a_distribution_and_the_part_of_each_context(
        self, engine: ClosableEngine, rule: WeightingRule, temperature: float
    ) -> None:
        request = request_of(engine, 9, 5, rule=rule, temperature=temperature, cut=Cut(max_published_tokens=12))
        steps = await fresh_steps(engine, request, tokens_of(engine, 7, 2))
        for step in steps:
            distribution = step.published.distribution
            assert 1 <= distribution.ids.size <= 12
            assert len(set(distribution.ids.tolist())) == distribution.ids.size
            assert int(distribution.ids.max()) < len(engine.vocabulary)
            assert distribution.probabilities.sum() == pytest.approx(1.0)
            assert step.context_shares.shape == (2, distribution.ids.size)
            assert (step.context_shares >= 0).all()
            np.testing.assert_allclose(step.context_shares.sum(axis=0), 1.0, atol=1e-6)
        assert steps[0].published != steps[1].published != steps[2].published

    @pytest.mark.parametrize("rule", WeightingRule)
    async def test_contexts_are_mixed_as_the_rule_says(self, engine: ClosableEngine, rule: WeightingRule) -> None:
        whole = Cut(nucleus=1.0, max_published_tokens=len(engine.vocabulary))
        both = request_of(engine, 9, 5, rule=rule, temperature=1.0, cut=whole)
        each = [await fresh_steps(engine, _only(both, at), tokens_of(engine, 7, 2)) for at in range(len(both.contexts))]
        for mixed, *alone in zip(await fresh_steps(engine, both, tokens_of(engine, 7, 2)), *each, strict=True):
            weights = np.array([step.published.weight_level for step in alone]) / 1024
            parts = np.exp(weights - log_sum_exp(weights))
            expected = sum(part * _probabilities(step, engine) for part, step in zip(parts, alone, strict=True))
            assert 0.5 * np.abs(_probabilities(mixed, engine) - expected).sum() < 2e-3
            total = 0.0 if rule is WeightingRule.EQUAL else log_sum_exp(weights)
            assert mixed.published.weight_level / 1024 == pytest.approx(total, abs=2e-3)

    @pytest.mark.parametrize("rule", WeightingRule)
    async def test_only_a_rule_with_a_constant_weight_announces_one(
        self, engine: ClosableEngine, rule: WeightingRule
    ) -> None:
        request = request_of(engine, 9, 5, rule=rule)
        async with driven(engine, request) as session:
            announced = session.session.constant_weight_level
            steps = [await session.fed(), await session.fed(*tokens_of(engine, 7, 1))]
        levels = [step.published.weight_level for step in steps]
        if not rule.is_constant:
            assert announced is None
            assert levels[0] != levels[1]
            return
        expected = constant_weight(np.array([context.relevance for context in request.contexts]), request.weighting)
        assert expected is not None
        assert levels == [announced, announced] == [quantise_weight(expected)] * 2

    # -- what a step must not depend on -----------------------------------------------------------------------------

    async def test_sessions_that_step_together_say_what_each_says_alone(self, engine: ClosableEngine) -> None:
        requests = [request_of(engine, *lengths, seed=at) for at, lengths in enumerate([(5,), (70,), (9, 12), (33,)])]
        paths = [tokens_of(engine, 20 + at, 6) for at in range(len(requests))]
        async with AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(driven(engine, request)) for request in requests]
            tickets = [
                [session.feed(token) for session, token in zip(sessions, tokens, strict=True)]
                for tokens in zip(*paths, strict=True)
            ]
            found = [
                [await session.answer(ticket) for session, ticket in zip(sessions, row, strict=True)] for row in tickets
            ]
        for at, (request, path) in enumerate(zip(requests, paths, strict=True)):
            for row, step in zip(found, (await fresh_steps(engine, request, path))[1:], strict=True):
                assert_same(row[at], step)

    @pytest.mark.parametrize("num_tokens", [2, 32, 33, 90])
    async def test_many_tokens_at_once_equal_one_by_one(self, engine: ClosableEngine, num_tokens: int) -> None:
        request, path = request_of(engine, 9), tokens_of(engine, 7, num_tokens)
        async with driven(engine, request) as session:
            at_once, after = await session.fed(*path), await session.fed(3)
        one_by_one = await fresh_steps(engine, request, (*path, 3))
        assert_same(at_once, one_by_one[-2])
        assert_same(after, one_by_one[-1])

    async def test_a_fork_goes_on_as_a_session_that_was_fed_its_path(self, engine: ClosableEngine) -> None:
        request = request_of(engine, 9, rule=WeightingRule.EVIDENCE, max_branches=2)
        path, first, second = (tokens_of(engine, seed, 3) for seed in (7, 8, 9))
        async with driven(engine, request) as session:
            session.feed(*path)
            session.submit(Fork(MAIN, SIDE))
            ours, theirs = session.feed(*first), session.feed(*second, branch=SIDE)
            found = [await session.answer(ticket) for ticket in (ours, theirs)]
        for step, tail in zip(found, (first, second), strict=True):
            assert_same(step, (await fresh_steps(engine, request, path + tail))[-1])

    async def test_after_a_rollback_nothing_was_ever_fed(self, engine: ClosableEngine) -> None:
        request = request_of(engine, 9)
        path, other = tokens_of(engine, 7, 40), tokens_of(engine, 8, 3)
        async with driven(engine, request) as session:
            before = await session.fed()
            await session.fed(*path)
            found = {}
            for position in (40, 33, 2, 0):
                session.submit(Rollback(MAIN, position))
                found[position] = await session.fed(*other)
            session.submit(Rollback(MAIN, 0))
            assert_same(await session.fed(), before)
        # Each rollback was to a position below what the last one left of the path.
        for position, step in found.items():
            assert_same(step, (await fresh_steps(engine, request, path[:position] + other))[-1])

    @pytest.mark.parametrize("is_dropped", [False, True])
    async def test_what_was_rolled_back_or_dropped_is_never_answered(
        self, engine: ClosableEngine, is_dropped: bool
    ) -> None:
        request = request_of(engine, 9, max_branches=2)
        path = tokens_of(engine, 7, 6)
        async with driven(engine, request) as session:
            session.submit(Fork(MAIN, SIDE))
            unwanted = [session.feed(token, branch=SIDE) for token in path]
            session.submit(Drop(SIDE) if is_dropped else Rollback(SIDE, 0))
            wanted = [session.feed(token) for token in path]
            found = [await session.answer(ticket) for ticket in wanted]
            assert not set(unwanted) & set(session.answers)
        for step, expected in zip(found, (await fresh_steps(engine, request, path))[1:], strict=True):
            assert_same(step, expected)

    async def test_random_interleavings_of_all_commands_answer_as_fresh_sessions_do(
        self, engine: ClosableEngine
    ) -> None:
        for seed in range(self.num_interleavings):
            await Interleaving(engine, seed).run(num_commands=60)


def _only(request: EngineRequest, at: int) -> EngineRequest:
    """The same with one of its contexts."""
    return replace(request, contexts=(request.contexts[at],))


def _probabilities(step: Step, engine: Engine) -> FloatArray:
    """(V,) of a step that was not cut."""
    probabilities = np.zeros(len(engine.vocabulary))
    probabilities[step.published.distribution.ids] = step.published.distribution.probabilities
    return probabilities
