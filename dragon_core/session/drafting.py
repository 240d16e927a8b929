"""When a peer drafts ahead, and how far. Owns the draft tree; settles nothing."""

from collections.abc import Sequence

from dragon_core.couplings.coupling import Coupling
from dragon_core.drafts import OwnDrafts, OwnFrame
from dragon_core.errors import OurError
from dragon_core.messages import Counters
from dragon_core.pace import Pace
from dragon_core.types import Command, Guess, Peer, Published, Step

MAX_GUESSES = 2
BRANCH_GAP_NAT = 0.15
"""A second guess is followed when it scores within this of the best: about every second such position is a miss."""


class Drafting:
    """Our frames: made, guessed from, advanced by targets. `coupling` may be exchanged when more is known."""

    def __init__(
        self,
        us: Peer,
        coupling: Coupling,
        settled: Sequence[int],
        *,
        window: int,
        branches: int,
        max_tokens: int,
        end_ids: frozenset[int],
        decode_seconds: float,
    ) -> None:
        self._us = us
        self.coupling = coupling
        self._max_tokens = max_tokens
        self._end_ids = end_ids
        self._pace = Pace(window=window, decode_seconds=decode_seconds)
        self.tree = OwnDrafts(settled, max_branches=branches)
        self._num_positions = 0
        self._num_hits = 0
        self._max_window_used = 0

    def take_commands(self) -> tuple[Command, ...]:
        """The engine commands collected since the last call."""
        commands, self.tree.commands = tuple(self.tree.commands), []
        return commands

    def published_at(self, position: int) -> Published | None:
        """Our current frame when it is the one at `position` and made."""
        frame = self.tree.current_made
        return frame.step.published if frame is not None and frame.step and frame.position == position else None

    def step_at(self, position: int) -> Step | None:
        """The engine's answer behind `published_at`."""
        frame = self.tree.current_made
        return frame.step if frame is not None and frame.position == position else None

    def guess(self) -> int:
        """What we expect to be fixed at the next position; its frame must be made."""
        frame = self.tree.current_made
        if frame is None or frame.step is None:
            raise OurError("there is no guess before the frame of the next position is made")
        return self._guesses(frame, frame.step)[0].token

    def advance(self, token: int, *, now: float) -> None:
        """Take one target and count the hit or miss, where our frame was there to be one."""
        frame = self.tree.current_made
        if frame is not None and frame.step is not None:
            is_hit = self._guesses(frame, frame.step)[0].token == token
            self._num_positions += 1
            self._num_hits += is_hit
            self._pace.note(is_hit=is_hit, waited_seconds=now - frame.made_at)
        self.tree.advance(token)

    def follow(self, tokens: Sequence[int], *, now: float) -> None:
        """Take many targets, most of which nobody drafted."""
        for count, token in enumerate(tokens):
            if self.tree.current_made is None:
                self.tree.follow(tokens[count:])
                return
            self.advance(token, now=now)

    def extend(self, *, now: float, rtt_seconds: float | None) -> float | None:
        """Continue every leaf that may be: inside the window, where waiting for the target would cost more.

        Returns the time at which to ask again, when waiting was preferred.
        """
        self.tree.feed_targets()
        next_position = self.tree.next_position
        limit = next_position + self._pace.window(rtt_seconds) - 1
        again_at: float | None = None
        patience = self._pace.patience_seconds()
        for leaf in self.tree.leaves():
            position = leaf.position + 1
            if position > limit or position >= self._max_tokens or leaf.step is None:
                continue
            if now < leaf.made_at + patience:
                again_at = leaf.made_at + patience
                continue
            self._continue(leaf, leaf.step)
        self._max_window_used = max(self._max_window_used, self.tree.depth())
        return again_at

    def counters(self) -> Counters:
        """What is counted at this end so far."""
        return Counters(
            num_positions=self._num_positions,
            num_hits=self._num_hits,
            num_steps=self.tree.num_steps,
            num_wasted_steps=self.tree.num_wasted_steps,
            max_window_used=self._max_window_used,
        )

    def _continue(self, leaf: OwnFrame, step: Step) -> None:
        num_guesses = 1 + max(0, min(1, self.tree.num_free_branches))
        guesses = self._guesses(leaf, step)[:num_guesses]
        followed = [guess for guess in guesses[:1] if guess.token not in self._end_ids]
        followed += [g for g in guesses[1:] if followed and g.gap < BRANCH_GAP_NAT and g.token not in self._end_ids]
        if followed:
            self.tree.continue_with(leaf, followed)

    def _guesses(self, frame: OwnFrame, step: Step) -> tuple[Guess, ...]:
        """The two best, worked out once a frame: the noise of a position is the dearest part of a token."""
        if not frame.guesses:
            frame.guesses = self.coupling.guesses(frame.position, step.published, MAX_GUESSES, self._us)
        return frame.guesses
