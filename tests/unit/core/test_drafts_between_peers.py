"""Our drafts at one end are their drafts at the other: over any order of events, no honest frame is lost or refused."""

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.drafts import OwnDrafts, TheirDrafts
from dragon_core.session.end import FRAMES_SLACK
from dragon_core.types import Context, Cut, Feed, Guess, Published, Sampling, Step, Weighting, WeightingRule
from simulator.toy_engine import ToySequences


def toy_engine(max_branches: int) -> ToySequences:
    return ToySequences(
        (Context(tokens=(1,), relevance=0.5),),
        Weighting(rule=WeightingRule.RELEVANCE),
        Sampling(),
        Cut(max_published_tokens=4),
        max_branches=max_branches,
    )


class Honest:
    """A peer that drafts ahead, its frames and the targets on their way, and the aggregator that takes them."""

    def __init__(self, chance: random.Random, *, window: int, max_branches: int) -> None:
        self.chance, self.window = chance, window
        self.ours = OwnDrafts([], max_branches=max_branches)
        self.engine_answers: deque[tuple[int, Step]] = deque()
        self.frames: deque[tuple[int, int | None, int | None, int, Published]] = deque()
        self.targets: deque[int] = deque()
        self.settled: list[int] = []
        self.theirs = TheirDrafts(max_frames=(window + FRAMES_SLACK) * max_branches)
        self.engine = toy_engine(max_branches)

    def run_commands(self) -> None:
        for command in self.ours.commands:
            step = self.engine.apply(command)
            if isinstance(command, Feed) and step is not None:
                self.engine_answers.append((command.ticket, step))
        self.ours.commands.clear()

    def answer(self) -> None:
        frame = self.ours.answered(*self.engine_answers.popleft(), now=0.0)
        if frame is not None and frame.step is not None:
            is_root = frame is self.ours.current
            parent, via = (None, None) if is_root else (frame.parent_id, frame.via)
            self.frames.append((frame.id, parent, via, frame.position, frame.step.published))

    def draft(self) -> None:
        self.ours.feed_targets()
        last = self.ours.next_position + self.window - 1
        for leaf in self.ours.leaves():
            if leaf.position < last:
                num_guesses = 1 + min(self.ours.num_free_branches, self.chance.randrange(3))
                tokens = self.chance.sample([1, 2, 3], num_guesses)
                self.ours.continue_with(leaf, [Guess(token, 0.0) for token in tokens])

    def fix(self) -> None:
        """Mostly what the other guessed; now and then without its frame, as when a token is certain early."""
        current = self.theirs.current
        if current is None and self.chance.random() < 0.7:
            return
        guessed = [*current.children] if current is not None else []
        token = self.chance.choice(guessed) if guessed and self.chance.random() < 0.8 else self.chance.choice([1, 2, 3])
        self.settled.append(token)
        self.theirs.advance(token)
        self.targets.append(token)

    def deliver(self) -> None:
        frame_id, parent, via, position, published = self.frames.popleft()
        self.theirs.add(published, id=frame_id, parent=parent, via=via, position=position, settled=self.settled)

    def act(self) -> None:
        match self.chance.randrange(5):
            case 0 if self.engine_answers:
                self.answer()
            case 1 if self.frames:
                self.deliver()
            case 2:
                self.fix()
            case 3 if self.targets:
                self.ours.advance(self.targets.popleft())
            case 4:
                self.draft()
            case _:
                pass
        self.run_commands()

    def settle_down(self) -> None:
        """Everything on its way arrives, and nothing new is drafted."""
        while self.targets:
            self.ours.advance(self.targets.popleft())
        while self.engine_answers or self.ours.next_position > self.ours.current.position:
            self.ours.feed_targets()
            self.run_commands()
            while self.engine_answers:
                self.answer()
        while self.frames:
            self.deliver()


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 3), st.integers(10, 120))
def test_the_frames_of_an_honest_peer_are_never_lost_or_refused(
    chance: random.Random, window: int, max_branches: int, num_acts: int
) -> None:
    pair = Honest(chance, window=window, max_branches=max_branches)
    pair.run_commands()
    for _ in range(num_acts):
        pair.act()
        current = pair.theirs.current
        if current is not None:
            assert current.position == len(pair.settled)
            assert current.published == pair.engine.step_after(pair.settled).published
    pair.settle_down()
    assert pair.theirs.current is not None, "the frame for the next position was made and did not count"
    assert pair.theirs.current.published == pair.engine.step_after(pair.settled).published
