"""Topic names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.errors import OurError, PeerError
from dragon_core.topics import Topics

TOPICS = Topics("ns", "dep")
SESSION = "0123456789abcdef" * 2


def test_what_is_built_is_understood() -> None:
    for topic in (TOPICS.open("d1", SESSION), TOPICS.up("d1", "r1", SESSION), TOPICS.down("d1", SESSION)):
        assert topic.startswith(TOPICS.device("d1") + "/")
        assert TOPICS.parse(topic) == ("d1", SESSION)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "A", "a\0", "x" * 64, "-a"])
def test_names_that_would_leave_the_subtree_are_refused(name: str) -> None:
    with pytest.raises(OurError):
        TOPICS.device(name)


@given(st.text() | st.text().map(lambda text: TOPICS.root + "/devices/" + text))
def test_hostile_topics_are_refused(topic: str) -> None:
    try:
        device, session = TOPICS.parse(topic)
    except PeerError:
        return
    assert topic in (TOPICS.open(device, session), TOPICS.down(device, session)) or "/replicas/" in topic
