"""Draft trees: the frames a peer has made ahead of the targets, and the ones it has received.

`OwnDrafts` also says what the engine must do. Nothing here decides when to draft or what a target is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dragon_core.errors import OurError, PeerError
from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Guess, Published, Rollback, Step


@dataclass(slots=True, eq=False)
class OwnFrame:
    """A position of ours: asked of the engine when `step` is None, else made. `via` is the token before it.

    `guesses` are what was expected after it, once somebody asked.
    """

    id: int
    parent_id: int | None
    via: int | None
    position: int
    branch: BranchId
    step: Step | None = None
    made_at: float = 0.0
    guesses: tuple[Guess, ...] = ()
    children: list["OwnFrame"] = field(default_factory=list)

    def walk(self) -> Iterator["OwnFrame"]:
        """This frame and everything after it, parents before children."""
        waiting = [self]
        while waiting:
            frame = waiting.pop()
            yield frame
            waiting.extend(reversed(frame.children))


class OwnDrafts:
    """Our frames from the next position on, and the engine branches that hold them.

    `current` is the frame on the settled path; `commands` collects what the engine must do, in order.
    """

    def __init__(self, settled: Sequence[int], *, max_branches: int) -> None:
        self._max_branches = max_branches
        self._frames: dict[int, OwnFrame] = {}
        self._next_id = 0
        self._next_branch = 1
        self._unfed: list[int] = []
        self.commands: list[Command] = []
        self.num_steps = 0
        self.num_wasted_steps = 0
        self.current = self._feed(tuple(settled), branch=BranchId(0), parent=None, position=len(settled))

    @property
    def next_position(self) -> int:
        """The first position without a target."""
        return self.current.position + len(self._unfed)

    @property
    def current_made(self) -> OwnFrame | None:
        """The frame at the next position, when the engine has answered it."""
        return None if self._unfed or self.current.step is None else self.current

    def answered(self, ticket: int, step: Step, *, now: float) -> OwnFrame | None:
        """Take the engine's answer; None when the frame was dropped or its position settled meanwhile."""
        self.num_steps += 1
        frame = self._frames.get(ticket)
        if frame is None:
            self.num_wasted_steps += 1
            return None
        frame.step, frame.made_at = step, now
        if frame is self.current and self._unfed:
            return None
        return frame

    def leaves(self) -> list[OwnFrame]:
        """Made frames nothing continues yet, on live branches, nearest to the settled path first."""
        if self._unfed:
            return []
        found = [frame for frame in self.current.walk() if not frame.children and frame.step is not None]
        return sorted(found, key=lambda frame: frame.position)

    def live_frames(self) -> list[OwnFrame]:
        """Made frames from the next position on, parents first; the first is the current one."""
        return [] if self.current_made is None else [f for f in self.current.walk() if f.step is not None]

    @property
    def num_free_branches(self) -> int:
        return self._max_branches - len({frame.branch for frame in self.current.walk()})

    def depth(self) -> int:
        """How many positions are asked for or made past the last target."""
        return max(frame.position for frame in self.current.walk()) - self.next_position + 1

    def continue_with(self, frame: OwnFrame, guesses: Sequence[Guess]) -> None:
        """Feed guesses after a leaf: the first on its own branch, the others on copies of it."""
        if frame.children or frame.step is None:
            raise OurError(f"frame {frame.id} cannot be continued: it is not a made leaf")
        branches = [frame.branch]
        for _ in guesses[1:]:
            branch = BranchId(self._next_branch)
            self._next_branch += 1
            self.commands.append(Fork(frame.branch, branch))
            branches.append(branch)
        for guess, branch in zip(guesses, branches, strict=True):
            child = self._feed((guess.token,), branch=branch, parent=frame, position=frame.position + 1)
            frame.children.append(child)

    def advance(self, token: int) -> bool:
        """Take the target of the next position; True when it had been drafted (a hit).

        A miss, or a target for a position not made yet, is fed by the next `feed_targets`.
        """
        if self._unfed or self.current.step is None:
            self._unfed.append(token)
            return False
        current = self.current
        hit = next((child for child in current.children if child.via == token), None)
        if hit is None:
            self._cut_back(current, keep=None)
            self._unfed.append(token)
            return False
        self._cut_back(current, keep=hit)
        self.current = hit
        return True

    def follow(self, tokens: Sequence[int]) -> None:
        """Take the targets of the next positions, for which nothing was drafted."""
        if self.current_made is not None:
            raise OurError("targets are taken one by one while there are drafts")
        self._unfed.extend(tokens)

    def feed_targets(self) -> None:
        """Feed the targets nothing was drafted for, all in one step, once the engine has answered the frame before."""
        current = self.current
        if not self._unfed or current.step is None:
            return
        tokens, self._unfed = tuple(self._unfed), []
        del self._frames[current.id]
        self.current = self._feed(tokens, branch=current.branch, parent=None, position=current.position + len(tokens))

    def restart(self, settled: Sequence[int]) -> int:
        """Go back to a shorter settled path; returns how many targets were dropped."""
        position = len(settled)
        num_dropped = self.next_position - position
        if num_dropped < 0:
            raise OurError(f"cannot go back to position {position}: only {self.next_position} targets are known")
        if num_dropped == 0:
            return 0
        if position >= self.current.position:
            del self._unfed[position - self.current.position :]
            return num_dropped
        self._unfed.clear()
        branch = self.current.branch
        for frame in self.current.walk():
            self._frames.pop(frame.id, None)
            self.num_wasted_steps += frame.step is not None
        for other in {frame.branch for frame in self.current.walk()} - {branch}:
            self.commands.append(Drop(other))
        kept = max(position - 1, 0)
        self.commands.append(Rollback(branch, kept))
        self.current = self._feed(tuple(settled[kept:]), branch=branch, parent=None, position=position)
        return num_dropped

    def problems(self) -> Iterator[str]:
        """What does not hold of the tree, in words; nothing of a sound one."""
        live = {frame.id: frame for frame in self.current.walk()}
        if live != self._frames:
            yield f"frames {sorted(live.keys() ^ self._frames.keys())} are either kept or reached, not both"
        if len({frame.branch for frame in live.values()}) > self._max_branches:
            yield f"more than {self._max_branches} branches"
        for frame in live.values():
            if frame.children and frame.step is None:
                yield f"frame {frame.id} is continued before it is made"
            if any(child.position != frame.position + 1 for child in frame.children):
                yield f"frame {frame.id} is continued at another position than the next"

    def _feed(self, tokens: tuple[int, ...], *, branch: BranchId, parent: OwnFrame | None, position: int) -> OwnFrame:
        frame = OwnFrame(
            self._next_id, None if parent is None else parent.id, tokens[-1] if tokens else None, position, branch
        )
        self._next_id += 1
        self._frames[frame.id] = frame
        self.commands.append(Feed(frame.id, branch, tokens))
        return frame

    def _cut_back(self, frame: OwnFrame, *, keep: OwnFrame | None) -> None:
        """Drop what continues `frame` but `keep`; without `keep` its own branch goes back to the frame."""
        if keep is not None and len(frame.children) == 1:  # no branch ends here; the walk below costs the whole window
            del self._frames[frame.id]
            return
        dropped = [below for child in frame.children if child is not keep for below in child.walk()]
        kept_branches = {frame.branch} if keep is None else {below.branch for below in keep.walk()}
        for below in dropped:
            self._frames.pop(below.id, None)
            self.num_wasted_steps += below.step is not None
        if keep is not None:
            self._frames.pop(frame.id, None)
            stale = ({below.branch for below in dropped} | {frame.branch}) - kept_branches
        else:
            stale = {below.branch for below in dropped} - kept_branches
        self.commands.extend(Drop(branch) for branch in sorted(stale))
        if keep is None and dropped:
            self.commands.append(Rollback(frame.branch, frame.position))
        frame.children = [] if keep is None else [keep]


@dataclass(slots=True, eq=False)
class TheirFrame:
    """A received frame on a path the targets may still take."""

    id: int
    position: int
    published: Published
    children: dict[int, "TheirFrame"] = field(default_factory=dict)


class TheirDrafts:
    """The other peer's frames from the next position on. An unknown parent means a dead frame, which is ignored."""

    def __init__(self, *, max_frames: int) -> None:
        self._max_frames = max_frames
        self._frames: dict[int, TheirFrame] = {}
        self._passed: tuple[int, int] | None = None
        self.current: TheirFrame | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def clear(self) -> None:
        """Forget every frame: the authority or the order of frames changed."""
        self._frames.clear()
        self._passed = None
        self.current = None

    def add(
        self,
        published: Published,
        *,
        id: int,
        parent: int | None,
        via: int | None,
        position: int,
        settled: Sequence[int],
    ) -> None:
        """Place a received frame.

        Raises:
            PeerError: a position that does not follow its parent's, or more live frames than the window allows.
        """
        if id in self._frames:
            return
        if parent is None:
            if position > len(settled):
                raise PeerError(f"a frame without parent at {position}; {len(settled)} are settled", field="position")
            self._place_on_path(TheirFrame(id, position, published), settled)
            return
        if via is None:
            raise PeerError("a frame with a parent names no token before it", field="via")
        above = self._frames.get(parent)
        parent_position = above.position if above is not None else self._passed_position(parent)
        if parent_position is None:
            return
        if position != parent_position + 1:
            raise PeerError(f"a frame at {position} whose parent is at {parent_position}", field="position")
        if above is None:
            if via == settled[parent_position]:
                self._place_on_path(TheirFrame(id, position, published), settled)
            return
        if via not in above.children:
            self._keep(frame := TheirFrame(id, position, published))
            above.children[via] = frame

    def advance(self, token: int) -> None:
        """Take the target of the next position: only what continues the current frame with it stays."""
        passed = self.current
        if passed is None:
            return
        self._passed = (passed.id, passed.position)
        self.current = passed.children.pop(token, None)
        dropped = [passed]
        while dropped:  # each frame once, however many targets come together
            frame = dropped.pop()
            del self._frames[frame.id]
            dropped.extend(frame.children.values())

    def follow(self, tokens: Sequence[int]) -> None:
        """Take the targets of the next positions, as far as there are frames for them."""
        for token in tokens:
            if self.current is None:
                return
            self.advance(token)

    def _passed_position(self, id: int) -> int | None:
        return self._passed[1] if self._passed is not None and self._passed[0] == id else None

    def _place_on_path(self, frame: TheirFrame, settled: Sequence[int]) -> None:
        if frame.position < len(settled):
            if self._passed is None or self._passed[1] < frame.position or self.current is None:
                self._passed = (frame.id, frame.position)
        elif self.current is None:
            self._keep(frame)
            self.current = frame

    def _keep(self, frame: TheirFrame) -> None:
        if len(self._frames) >= self._max_frames:
            raise PeerError(
                f"more than {self._max_frames} live frames: more than window and branches allow", field="id"
            )
        self._frames[frame.id] = frame
