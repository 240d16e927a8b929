"""Commands in random order to several sessions of one engine; every answer must be a fresh session's."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dragon_core.types import BranchId, Drop, Fork, Rollback, Step, WeightingRule
from dragon_runtime.engines.publishing import drafted_token
from dragon_runtime.interfaces import Engine, EngineRequest
from tests.contracts.engine_sessions import (
    MAIN,
    NUM_SEQUENCES,
    DrivenSession,
    assert_same,
    fresh_steps,
    request_of,
    tokens_of,
)

Path = tuple[int, ...]
MAX_TOKENS = 48
MAX_SESSIONS = 3


@dataclass
class _Play:
    """A session with what its branches hold, and the paths of the tickets that will be answered."""

    request: EngineRequest
    session: DrivenSession
    branches: dict[BranchId, Path] = field(default_factory=lambda: {MAIN: ()})
    pending: dict[int, tuple[BranchId, Path]] = field(default_factory=dict)
    next_branch: int = 1

    def draft(self, branch: BranchId) -> int | None:
        """What a session would feed to a branch now: an engine may have fed it already."""
        for ticket, (_, path) in self.pending.items():
            if path == self.branches[branch] and ticket in self.session.answers:
                return drafted_token(self.request, len(path), self.session.answers[ticket])
        return None

    def forget(self, branch: BranchId, *, after: int) -> None:
        """Answers that are not here yet must never come."""
        for ticket, (at, path) in tuple(self.pending.items()):
            if at == branch and len(path) > after and ticket not in self.session.answers:
                self.session.unwanted.add(ticket)
                del self.pending[ticket]


class Interleaving:
    """One random run. The commands follow from the seed and from which answers have come by then."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine, self._random = engine, random.Random(seed)
        self._plays: list[_Play] = []
        self._answers: list[tuple[EngineRequest, Path, Step]] = []
        self._mistakes: list[int] = []
        self._alphabet = tokens_of(engine, seed, 3)
        rules = list(WeightingRule)
        self._requests = [
            request_of(engine, *lengths, seed=seed, rule=rules[(seed + at) % 4], max_branches=2, max_tokens=MAX_TOKENS)
            for at, lengths in enumerate([(9,), (5,), (4, 11)])
        ]
        self._requests += [
            request_of(engine, 6, seed=seed, rule=rules[seed % 4], max_tokens=MAX_TOKENS, draft_seed=seed),
            replace(self._requests[0], draft_seed=seed),
        ]

    async def run(self, *, num_commands: int) -> None:
        """Submit, wait for what is still wanted, close, and compare."""
        acts: list[Callable[[_Play], object]] = [
            self._feed,
            self._feed,
            self._feed_many,
            self._fork,
            self._roll_back,
            self._drop,
        ]
        for _ in range(num_commands):
            what = self._random.random()
            if not self._plays or what < 0.08:
                await self._open()
            elif what < 0.12:
                await self._close(self._random.choice(self._plays))
            elif what < 0.25:
                await self._wait(self._random.choice(self._plays))
            else:
                self._random.choice(acts)(self._random.choice(self._plays))
        for play in tuple(self._plays):
            for ticket in play.pending:
                await play.session.answer(ticket)
            await self._close(play)
        assert self._mistakes == []
        await self._compare()

    async def _open(self) -> None:
        request = self._random.choice(self._requests)
        used = sum(_num_sequences(play.request) for play in self._plays)
        if len(self._plays) < MAX_SESSIONS and used + _num_sequences(request) <= NUM_SEQUENCES:
            self._plays.append(_Play(request, await DrivenSession.open(self._engine, request)))

    async def _close(self, play: _Play) -> None:
        """Answers that came until now count; after it none may."""
        self._plays.remove(play)
        answered = dict(play.session.answers)
        play.session.unwanted.update(set(play.pending) - set(answered))
        await play.session.close()
        await asyncio.sleep(0)
        self._mistakes += play.session.mistakes
        self._answers += [
            (play.request, path, answered[ticket]) for ticket, (_, path) in play.pending.items() if ticket in answered
        ]

    async def _wait(self, play: _Play) -> None:
        waiting = [ticket for ticket in play.pending if ticket not in play.session.answers]
        if waiting:
            await play.session.answer(self._random.choice(waiting))
        else:
            await asyncio.sleep(0)

    def _feed(self, play: _Play, num_tokens: int | None = None) -> None:
        branch = self._random.choice(list(play.branches))
        path = play.branches[branch]
        wanted = self._random.randint(0, 2) if num_tokens is None else num_tokens
        tokens = tuple(self._random.choice(self._alphabet) for _ in range(wanted or (1 if path else 0)))
        draft = play.draft(branch)
        if draft is not None and self._random.random() < 0.7:
            tokens = (draft,)
        if len(path) + len(tokens) <= MAX_TOKENS:
            play.branches[branch] = path + tokens
            play.pending[play.session.feed(*tokens, branch=branch)] = (branch, path + tokens)

    def _feed_many(self, play: _Play) -> None:
        if self._random.random() < 0.2:
            self._feed(play, num_tokens=35)

    def _fork(self, play: _Play) -> None:
        if len(play.branches) < play.request.max_branches:
            source, branch = self._random.choice(list(play.branches)), BranchId(play.next_branch)
            play.next_branch += 1
            play.session.submit(Fork(source, branch))
            play.branches[branch] = play.branches[source]

    def _roll_back(self, play: _Play) -> None:
        branch = self._random.choice(list(play.branches))
        position = self._random.randint(0, len(play.branches[branch]))
        play.session.submit(Rollback(branch, position))
        play.branches[branch] = play.branches[branch][:position]
        play.forget(branch, after=position)

    def _drop(self, play: _Play) -> None:
        if len(play.branches) > 1:
            branch = self._random.choice(list(play.branches))
            play.session.submit(Drop(branch))
            del play.branches[branch]
            play.forget(branch, after=-1)

    async def _compare(self) -> None:
        """Each path is walked once; what is the beginning of another is met on the way."""
        for request in self._requests:
            found = [(path, step) for asked, path, step in self._answers if asked is request]
            walked: list[tuple[Path, list[Step]]] = []
            for path, step in sorted(found, key=lambda each: -len(each[0])):
                known = next((steps for longer, steps in walked if longer[: len(path)] == path), None)
                if known is None:
                    known = await fresh_steps(self._engine, replace(request, draft_seed=None), path)
                    walked.append((path, known))
                assert_same(step, known[len(path)])


def _num_sequences(request: EngineRequest) -> int:
    return (len(request.contexts) + (request.bare_prompt is not None)) * request.max_branches
