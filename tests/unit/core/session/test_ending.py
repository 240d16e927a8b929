"""Where an answer ends and what may be shown, against a reference that looks at the whole byte string every time."""

import codecs
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.messages import FinishReason
from dragon_core.session.ending import Ending
from dragon_core.types import Vocabulary

END, ALSO_END, SPECIAL = 0, 1, 2
CHARACTERS = ("a", "b", "é", "€", "😀")
"""One, one, two, three and four bytes."""
PIECES = [
    char.encode()[start:end]
    for char in CHARACTERS
    for start, end in itertools.combinations(range(len(char.encode()) + 1), 2)
]
TOKEN_BYTES = (b"", b"", b"", *PIECES, b"ab", b"aab", b"ba", "b€".encode(), "aé".encode()[:2], b"\xff", b"\xc0a")
VOCABULARY = Vocabulary(
    token_bytes=TOKEN_BYTES, special_ids=frozenset({END, ALSO_END, SPECIAL}), end_ids=frozenset({END, ALSO_END})
)
tokens = st.integers(2, len(TOKEN_BYTES) - 1)
answers = st.lists(tokens | st.sampled_from((END, ALSO_END, 3, 4, 3, 4)), max_size=25)
stops = st.lists(st.text("abé€", min_size=1, max_size=5), max_size=4).map(tuple)


@dataclass
class PlainEnding:
    """The end rules as the page has them, at whatever cost: every stop string is looked for after every token."""

    stop: tuple[bytes, ...]
    max_tokens: int
    num_tokens: int = 0
    held: bytes = b""
    reason: FinishReason | None = None

    def push(self, token: int) -> bytes:
        self.num_tokens += 1
        if token in VOCABULARY.end_ids:
            self.reason = FinishReason.STOP
            return self.release(len(self.held))
        self.held += TOKEN_BYTES[token]
        if found := [at for text in self.stop if (at := self.held.find(text)) >= 0]:
            self.reason = FinishReason.STOP
            shown = self.release(min(found))
            self.held = b""
            return shown
        if self.num_tokens >= self.max_tokens:
            self.reason = FinishReason.LENGTH
            return self.release(len(self.held))
        begun = [length for text in self.stop for length in range(len(text)) if self.held.endswith(text[:length])]
        return self.release(len(self.held) - max([0, self.unfinished(), *begun]))

    def unfinished(self) -> int:
        for length in range(1, min(3, len(self.held)) + 1):
            lead = self.held[-length]
            if not 0x80 <= lead < 0xC0:
                needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
                return length if lead >= 0xC0 and length < needed else 0
        return 0

    def release(self, num_bytes: int) -> bytes:
        shown, self.held = self.held[:num_bytes], self.held[num_bytes:]
        return shown


def whole_text(tokens: list[int]) -> bytes:
    return b"".join(TOKEN_BYTES[token] for token in tokens)


def reference(tokens: list[int], stop: tuple[str, ...], max_tokens: int) -> tuple[int, FinishReason | None, bytes]:
    """How many tokens the answer has, why it ended, and all that is shown of a finished one."""
    for count in range(1, len(tokens) + 1):
        text = whole_text(tokens[:count])
        if tokens[count - 1] in (END, ALSO_END):
            return count, FinishReason.STOP, text
        found = [at for string in stop if (at := text.find(string.encode())) >= 0]
        if found:
            return count, FinishReason.STOP, text[: min(found)]
        if count == max_tokens:
            return count, FinishReason.LENGTH, text
    return len(tokens), None, whole_text(tokens)


def longest_beginning(text: bytes, stop: tuple[str, ...]) -> int:
    """Length of the longest tail of `text` that may begin a stop string."""
    tails = [text[at:] for at in range(len(text))]
    return max((len(t) for t in tails for s in stop if t != s.encode() and s.encode().startswith(t)), default=0)


def unfinished_character(text: bytes) -> int | None:
    """Length of the character that `text` ends in the middle of; None when it is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(text)
    except UnicodeDecodeError:
        return None
    return len(decoder.getstate()[0])


@settings(max_examples=500)
@given(answers, stops, st.integers(1, 30))
def test_the_answer_ends_and_is_shown_as_the_reference_says(
    answer: list[int], stop: tuple[str, ...], max_tokens: int
) -> None:
    count, reason, text = reference(answer, stop, max_tokens)
    ending = Ending(VOCABULARY, max_tokens=max_tokens, stop=stop)
    shown = b""
    for at, token in enumerate(answer[:count]):
        assert ending.reason is None, f"over before token {at}"
        shown += ending.push(token)
        assert text.startswith(shown)
    assert ending.reason is reason
    if reason is not None:
        assert shown == text
    else:
        num_held, unfinished = len(text) - len(shown), unfinished_character(text)
        if unfinished is None:
            assert longest_beginning(text, stop) <= num_held <= max(longest_beginning(text, stop), 3)
        else:
            assert num_held == max(longest_beginning(text, stop), unfinished), "as much as must be, and no more"


repetitive_stops = st.lists(st.text("ab", min_size=1, max_size=9) | st.text("é€", min_size=1, max_size=3), max_size=6)
repetitive_answers = st.lists(st.sampled_from((3, 4, 3, 4, len(TOKEN_BYTES) - 7, len(TOKEN_BYTES) - 6, 2)) | tokens)


@settings(max_examples=500)
@given(answers | repetitive_answers, stops | repetitive_stops.map(tuple), st.integers(1, 60), st.integers(0, 60))
def test_every_token_shows_what_the_plain_rule_shows(
    answer: list[int], stop: tuple[str, ...], max_tokens: int, cut_at: int
) -> None:
    """Also where an end comes in with `cut_at` tokens fixed before."""
    plain = PlainEnding(tuple(text.encode() for text in stop), max_tokens)
    ending = Ending(VOCABULARY, max_tokens=max_tokens, stop=stop)
    late = Ending(VOCABULARY, max_tokens=max_tokens, stop=stop)
    for count, token in enumerate(answer):
        if count == cut_at:
            late.restart(answer[:count])
        shown = plain.push(token)
        assert ending.push(token) == shown
        assert ending.reason is plain.reason
        if count >= cut_at:
            assert late.push(token) == shown
            assert late.reason is plain.reason
        if plain.reason is not None:
            return


@given(st.text("abé€😀xyz", max_size=20), st.data(), stops)
def test_what_is_shown_is_always_whole_characters(text: str, data: st.DataObject, stop: tuple[str, ...]) -> None:
    """However a text is cut into tokens."""
    encoded = text.encode()
    borders = sorted(data.draw(st.sets(st.integers(0, len(encoded)))) | {0, len(encoded)})
    pieces = tuple(encoded[start:end] for start, end in itertools.pairwise(borders))
    vocabulary = Vocabulary(token_bytes=pieces, special_ids=frozenset(), end_ids=frozenset())
    ending = Ending(vocabulary, max_tokens=1000, stop=stop)
    for token in range(len(pieces)):
        if ending.reason is None:
            ending.push(token).decode()


@given(answers, answers, stops, st.integers(1, 30))
def test_a_restart_forgets_what_came_before(
    before: list[int], answer: list[int], stop: tuple[str, ...], max_tokens: int
) -> None:
    answer = answer[: reference(answer, stop, max_tokens)[0]]
    fresh = Ending(VOCABULARY, max_tokens=max_tokens, stop=stop)
    used = Ending(VOCABULARY, max_tokens=max_tokens, stop=stop)
    for token in before[: reference(before, stop, max_tokens)[0]]:
        used.push(token)
    for token in answer[:-1]:
        fresh.push(token)
    used.restart(answer[:-1])
    assert used.reason is fresh.reason
    if answer:
        assert used.push(answer[-1]) == fresh.push(answer[-1])
        assert used.reason is fresh.reason


def pushed(pieces: list[str], stop: tuple[str, ...], max_tokens: int = 100) -> tuple[list[bytes], FinishReason | None]:
    vocabulary = Vocabulary(
        token_bytes=tuple(piece.encode("latin-1") for piece in pieces), special_ids=frozenset(), end_ids=frozenset()
    )
    ending = Ending(vocabulary, max_tokens=max_tokens, stop=stop)
    return [ending.push(token) for token in range(len(pieces))], ending.reason


@pytest.mark.parametrize(
    ("pieces", "stop", "shown"),
    [
        pytest.param(["one\n", "\nuser"], ("\n\n",), ["one", ""], id="over a token border"),
        pytest.param(["ab", "ac"], ("aba", "abc"), ["", ""], id="the one that comes true first"),
        pytest.param(["xab", "cd"], ("bcd", "abcd"), ["x", ""], id="of two at once, the one that begins first"),
        pytest.param(["aa", "ab"], ("aab",), ["", "a"], id="a beginning that begins again"),
        pytest.param(["ab", "x"], ("abc",), ["", "abx"], id="held back in vain"),
        pytest.param(["\xe2", "\x82", "\xac!"], (), ["", "", "\xe2\x82\xac!"], id="a character in three tokens"),
        pytest.param(["a\xc3", "\xa9b"], ("\u00e9",), ["a", ""], id="a stop string that is half a token"),
    ],
)
def test_known_answers(pieces: list[str], stop: tuple[str, ...], shown: list[str]) -> None:
    assert pushed(pieces, stop)[0] == [text.encode("latin-1") for text in shown]


def test_what_is_held_back_is_shown_at_the_last_token() -> None:
    assert pushed(["a", "b"], ("abc",), max_tokens=2) == ([b"", b"ab"], FinishReason.LENGTH)
    assert pushed(["a", "\xe2"], (), max_tokens=2) == ([b"a", b"\xe2"], FinishReason.LENGTH)
    assert pushed(["a", "b"], ("b",), max_tokens=2) == ([b"a", b""], FinishReason.STOP)
