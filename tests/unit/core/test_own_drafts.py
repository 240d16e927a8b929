"""Our own drafts: whatever is drafted, missed, rolled back or answered late, what is left is never having drafted."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dragon_core.drafts import OwnDrafts, OwnFrame
from dragon_core.errors import OurError
from dragon_core.types import Context, Cut, Feed, Guess, Sampling, Step, Weighting, WeightingRule
from simulator.toy_engine import ToySequences

CONTEXTS = (Context(tokens=(1, 2), relevance=0.6), Context(tokens=(3,), relevance=0.4))
tokens = st.integers(1, 4)
"""Few, so that random targets are often hits."""


def toy_engine(max_branches: int) -> ToySequences:
    weighting = Weighting(rule=WeightingRule.RELEVANCE)
    return ToySequences(CONTEXTS, weighting, Sampling(), Cut(max_published_tokens=8), max_branches=max_branches)


def guesses_of(tokens: list[int]) -> list[Guess]:
    return [Guess(token, 0.1 * rank) for rank, token in enumerate(tokens)]


class DraftedAnswer(RuleBasedStateMachine):
    """Drafts with an engine that answers in order, as late as the test likes, and some never."""

    @initialize(max_branches=st.integers(1, 4), settled=st.lists(tokens, max_size=3))
    def begin(self, max_branches: int, settled: list[int]) -> None:
        self.max_branches = max_branches
        self.engine = toy_engine(max_branches)
        self.settled = list(settled)
        self.drafts = OwnDrafts(settled, max_branches=max_branches)
        self.pending: list[tuple[int, Step]] = []
        self.num_answered = self.num_used = 0

    @precondition(lambda self: self.drafts.leaves())
    @rule(which=st.integers(0, 7), guesses=st.lists(tokens, min_size=1, max_size=4, unique=True))
    def draft_ahead(self, which: int, guesses: list[int]) -> None:
        leaves = self.drafts.leaves()
        leaf = leaves[which % len(leaves)]
        self.drafts.continue_with(leaf, guesses_of(guesses[: 1 + self.drafts.num_free_branches]))

    @precondition(lambda self: self.pending)
    @rule()
    def engine_answers(self) -> None:
        ticket, step = self.pending.pop(0)
        self.num_answered += 1
        is_live = any(frame.id == ticket for frame in self.drafts.current.walk())
        frame = self.drafts.answered(ticket, step, now=1.0)
        if frame is not None:
            assert frame.id == ticket
            assert frame.step is step
        assert (frame is not None) == (is_live and self.drafts.next_position <= self.position_of(ticket))

    def position_of(self, ticket: int) -> int:
        return next(frame.position for frame in self.drafts.current.walk() if frame.id == ticket)

    @rule()
    def stale_answers_never_come(self) -> None:
        self.pending = [(ticket, step) for ticket, step in self.pending if self.engine.is_wanted(ticket)]

    @rule(token=tokens)
    def target_comes(self, token: int) -> None:
        current = self.drafts.current_made
        is_drafted = current is not None and any(child.via == token for child in current.children)
        assert self.drafts.advance(token) == is_drafted
        self.settled.append(token)
        self.num_used += is_drafted

    @precondition(lambda self: self.drafts.current_made is not None and self.drafts.current.children)
    @rule(which=st.integers(0, 3))
    def target_is_a_hit(self, which: int) -> None:
        children = self.drafts.current.children
        via = children[which % len(children)].via
        assert via is not None
        self.target_comes(via)

    @rule()
    def targets_are_fed(self) -> None:
        before = self.drafts.current
        self.drafts.feed_targets()
        self.num_used += self.drafts.current is not before

    @rule(num_dropped=st.integers(0, 3))
    def settled_path_is_cut(self, num_dropped: int) -> None:
        num_dropped = min(num_dropped, len(self.settled))
        self.settled = self.settled[: len(self.settled) - num_dropped]
        assert self.drafts.restart(self.settled) == num_dropped

    @invariant()
    def engine_takes_every_command_and_holds_only_what_lives(self) -> None:
        for command in self.drafts.commands:
            step = self.engine.apply(command)
            if isinstance(command, Feed) and step is not None:
                self.pending.append((command.ticket, step))
        self.drafts.commands.clear()
        live = list(self.drafts.current.walk())
        assert set(self.engine.branches) == {frame.branch for frame in live}
        assert self.drafts.num_free_branches == self.max_branches - self.engine.num_branches
        assert self.drafts.next_position == len(self.settled)
        paths = self.paths()
        waiting = {ticket for ticket, _ in self.pending}
        for frame in live:
            path = paths[frame.id]
            assert frame.position == len(path)
            assert self.engine.branches[frame.branch][: len(path)] == path
            if frame.step is None:
                assert frame.id in waiting, "a frame that no answer will ever reach"
                assert self.engine.is_wanted(frame.id), "a frame that the engine need not answer"
            else:
                assert frame.step == self.engine.step_after(path)

    @invariant()
    def every_step_was_used_is_live_or_was_wasted(self) -> None:
        num_live = sum(frame.step is not None for frame in self.drafts.current.walk())
        assert self.drafts.num_steps == self.num_answered
        assert self.num_used + num_live + self.drafts.num_wasted_steps == self.num_answered

    def paths(self) -> dict[int, list[int]]:
        """The tokens before every live frame."""
        found: dict[int, list[int]] = {}

        def follow(frame: OwnFrame, path: list[int]) -> None:
            found[frame.id] = path
            for child in frame.children:
                assert child.via is not None
                follow(child, [*path, child.via])

        follow(self.drafts.current, self.settled[: self.drafts.current.position])
        return found

    def teardown(self) -> None:
        """Once everything is answered and fed, nothing tells these drafts from ones that never guessed."""
        if not hasattr(self, "drafts"):
            return
        while self.pending or self.drafts.next_position > self.drafts.current.position:
            if self.pending:
                self.engine_answers()
            self.targets_are_fed()
            self.engine_takes_every_command_and_holds_only_what_lives()
        fresh, fresh_engine = OwnDrafts(self.settled, max_branches=1), toy_engine(1)
        step = fresh_engine.apply(fresh.commands[0])
        assert step is not None
        made = self.drafts.current_made
        assert made is not None
        assert made.step == step
        assert made.position == len(self.settled)
        assert len(self.drafts.live_frames()) == len(list(self.drafts.current.walk()))


DraftedAnswer.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestDraftedAnswer = DraftedAnswer.TestCase


def answered_drafts(settled: list[int], *, max_branches: int = 2) -> tuple[OwnDrafts, ToySequences]:
    """Drafts whose first frame is made."""
    drafts, engine = OwnDrafts(settled, max_branches=max_branches), toy_engine(max_branches)
    answer_all(drafts, engine)
    return drafts, engine


def answer_all(drafts: OwnDrafts, engine: ToySequences) -> None:
    commands, drafts.commands = drafts.commands, []
    for command in commands:
        step = engine.apply(command)
        if isinstance(command, Feed) and step is not None:
            drafts.answered(command.ticket, step, now=0.0)


def test_several_targets_at_once_are_fed_in_one_step() -> None:
    drafts, engine = answered_drafts([1])
    for token in (2, 3, 4):
        drafts.advance(token)
    drafts.feed_targets()
    feeds = [command for command in drafts.commands if isinstance(command, Feed)]
    assert [feed.tokens for feed in feeds] == [(2, 3, 4)]
    answer_all(drafts, engine)
    assert drafts.num_steps == 2


def test_only_a_made_leaf_can_be_continued() -> None:
    drafts, engine = answered_drafts([1])
    leaf = drafts.leaves()[0]
    drafts.continue_with(leaf, guesses_of([2]))
    with pytest.raises(OurError, match="cannot be continued"):
        drafts.continue_with(leaf, guesses_of([3]))
    with pytest.raises(OurError, match="cannot be continued"):
        drafts.continue_with(leaf.children[0], guesses_of([3]))
    answer_all(drafts, engine)
    drafts.continue_with(leaf.children[0], guesses_of([3]))


def test_no_path_goes_back_to_a_longer_one() -> None:
    drafts, _ = answered_drafts([1, 2])
    with pytest.raises(OurError, match="only 2 targets are known"):
        drafts.restart([1, 2, 3])
