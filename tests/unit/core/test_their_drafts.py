"""The other peer's drafts: which frames count, which are dead, and what is refused."""

import random
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.distribution import cut
from dragon_core.drafts import TheirDrafts
from dragon_core.errors import PeerError
from dragon_core.types import Cut, Published

PUBLISHED = Published(0, cut(np.array([0.5, 0.3, 0.2]), Cut()))


class Received:
    """A peer's frames as they come in, and the targets fixed meanwhile."""

    def __init__(self, settled: list[int], *, max_frames: int = 100) -> None:
        self.settled = list(settled)
        self.drafts = TheirDrafts(max_frames=max_frames)

    def add(
        self, id: int, parent: int | None, via: int | None, position: int, published: Published = PUBLISHED
    ) -> None:
        self.drafts.add(published, id=id, parent=parent, via=via, position=position, settled=self.settled)

    def fix(self, token: int) -> None:
        self.settled.append(token)
        self.drafts.advance(token)

    @property
    def current_id(self) -> int | None:
        return None if self.drafts.current is None else self.drafts.current.id


def test_a_frame_without_parent_continues_the_settled_path() -> None:
    theirs = Received([7, 8])
    theirs.add(5, None, None, 2)
    assert theirs.current_id == 5


def test_the_child_that_assumed_the_target_becomes_current_and_its_siblings_go() -> None:
    theirs = Received([])
    theirs.add(0, None, None, 0)
    for child, via in ((1, 7), (2, 8)):
        theirs.add(child, 0, via, 1)
        theirs.add(child + 10, child, 9, 2)
    theirs.fix(8)
    assert theirs.current_id == 2
    assert len(theirs.drafts) == 2
    theirs.fix(9)
    assert theirs.current_id == 12


def test_a_miss_leaves_no_frame() -> None:
    theirs = Received([])
    theirs.add(0, None, None, 0)
    theirs.add(1, 0, 7, 1)
    theirs.fix(8)
    assert theirs.current_id is None
    assert len(theirs.drafts) == 0
    theirs.add(2, 1, 9, 2)  # continues the path that was not taken
    assert len(theirs.drafts) == 0
    theirs.add(3, None, None, 1)
    assert theirs.current_id == 3


def test_a_frame_of_an_unknown_parent_is_ignored_and_all_that_follows_it() -> None:
    theirs = Received([])
    theirs.add(0, None, None, 0)
    theirs.add(6, 5, 7, 1)
    theirs.add(7, 6, 7, 2)
    theirs.add(8, 6, 7, 999)
    assert len(theirs.drafts) == 1


def test_a_frame_for_a_settled_position_counts_only_as_a_parent() -> None:
    theirs = Received([7, 8])
    theirs.add(0, None, None, 0)
    assert len(theirs.drafts) == 0
    theirs.add(1, 0, 7, 1)
    theirs.add(2, 0, 6, 1)
    theirs.add(3, 1, 8, 2)
    assert theirs.current_id == 3
    assert len(theirs.drafts) == 1


def test_a_child_may_arrive_after_its_parent_has_passed() -> None:
    theirs = Received([])
    theirs.add(0, None, None, 0)
    theirs.fix(7)
    theirs.add(1, 0, 6, 1)
    assert theirs.current_id is None
    theirs.add(2, 0, 7, 1)
    assert theirs.current_id == 2


def test_a_repeated_frame_changes_nothing() -> None:
    theirs = Received([])
    for _ in range(2):
        theirs.add(0, None, None, 0)
        theirs.add(1, 0, 7, 1)
        theirs.add(2, 1, 8, 2)
    theirs.add(3, 0, 7, 1)  # the same path under another name
    theirs.add(4, None, None, 0)
    assert len(theirs.drafts) == 3
    theirs.fix(7)
    assert theirs.current_id == 1


@pytest.mark.parametrize(
    ("id", "parent", "via", "position", "field"),
    [
        (9, 0, 7, 3, "position"),
        (9, 0, 7, 1, "position"),
        (9, 1, 7, 4, "position"),
        (9, 1, 7, 2, "position"),
        (9, None, None, 3, "position"),
        (9, 0, None, 3, "via"),
    ],
)
def test_a_position_that_does_not_follow_is_refused(
    id: int, parent: int | None, via: int | None, position: int, field: str
) -> None:
    theirs = Received([7])
    theirs.add(0, None, None, 1)
    theirs.fix(8)
    theirs.add(1, 0, 8, 2)
    with pytest.raises(PeerError) as refused:
        theirs.add(id, parent, via, position)
    assert refused.value.field == field


@pytest.mark.parametrize("num_children", [1, 3])
def test_more_frames_than_the_window_holds_are_refused(num_children: int) -> None:
    """Deep or broad: 10 live frames and no more."""
    theirs = Received([], max_frames=10)
    theirs.add(0, None, None, 0)
    for child in range(1, 10):
        theirs.add(child, (child - 1) // num_children, child, _depth(child, num_children))
    with pytest.raises(PeerError) as refused:
        theirs.add(10, 9 // num_children, 10, _depth(10, num_children))
    assert refused.value.field == "id"
    assert len(theirs.drafts) == 10
    theirs.fix(1)  # what has passed makes room again
    assert len(theirs.drafts) < 10


def _depth(frame: int, num_children: int) -> int:
    return 0 if frame == 0 else 1 + _depth((frame - 1) // num_children, num_children)


def test_cleared_drafts_know_no_parent() -> None:
    theirs = Received([])
    theirs.add(0, None, None, 0)
    theirs.fix(7)
    theirs.drafts.clear()
    theirs.add(1, 0, 7, 1)
    assert theirs.current_id is None
    assert len(theirs.drafts) == 0


nodes = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 3)), max_size=25)


@settings(max_examples=200)
@given(nodes, st.lists(st.integers(1, 3), max_size=6), st.randoms(use_true_random=False))
def test_of_any_tree_the_frames_that_may_still_come_true_are_kept(
    nodes: list[tuple[int, int]], targets: list[int], chance: random.Random
) -> None:
    """Each node hangs below an earlier one; frames and targets arrive mixed. A path is followed by one frame only."""
    paths: dict[int, tuple[int, ...]] = {0: ()}
    parents: dict[int, tuple[int, int]] = {}
    for frame, (above, via) in enumerate(nodes, start=1):
        parent = above % frame
        if parent in paths and (*paths[parent], via) not in paths.values():
            paths[frame], parents[frame] = (*paths[parent], via), (parent, via)
    theirs = Received([])
    arrived: list[int] = []
    waiting, to_fix = deque(paths), deque(targets)
    while waiting or to_fix:
        if to_fix and (not waiting or chance.random() < 0.25):
            theirs.fix(to_fix.popleft())
        else:
            frame = waiting.popleft()
            parent_id, token = parents.get(frame, (None, None))
            theirs.add(frame, parent_id, token, len(paths[frame]))
            arrived.append(frame)
        settled = tuple(theirs.settled)
        live = [frame for frame in arrived if paths[frame][: len(settled)] == settled]
        assert len(theirs.drafts) == len(live)
        assert theirs.current_id == next((frame for frame in live if paths[frame] == settled), None)
