"""Where an answer ends and which bytes of it may be shown: a function of the settled tokens, alike at both ends."""

from collections.abc import Iterable, Sequence

from dragon_core.messages import FinishReason
from dragon_core.types import Vocabulary

MAX_UNFINISHED_BYTES = 3
"""Of a UTF-8 character."""
START = 0
"""The state of a stream that ends with the beginning of no stop string."""


class StopStrings:
    """All stop strings of an answer in a stream of bytes: an automaton (Aho and Corasick 1975).

    To build it takes a step for each byte of the texts, to follow it one for each byte of the stream, however many and
    long the texts are. A state is the longest tail of the stream that begins one of them. Per state, `depth` is the
    length of that tail and `longest_found` that of the longest stop string which it ends with, 0 without.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._next: dict[int, int] = {}
        """By state * 256 + byte: one dictionary is made several times faster than one for each state."""
        self._entered_by = [START]
        self._shorter: list[int] = []
        self.depth = [0]
        self.longest_found = [0]
        for text in texts:
            self._add(text.encode())
        self._link()

    def after(self, state: int, byte: int) -> int:
        """The state after one more byte."""
        while (found := self._next.get(state * 256 + byte)) is None:
            if state == START:
                return START
            state = self._shorter[state]
        return found

    def _add(self, text: bytes) -> None:
        state = START
        for depth, byte in enumerate(text, 1):
            step = state * 256 + byte
            below = self._next.get(step)
            if below is None:
                below = self._next[step] = len(self.depth)
                self._entered_by.append(step)
                self.depth.append(depth)
                self.longest_found.append(0)
            state = below
        self.longest_found[state] = len(text)

    def _link(self) -> None:
        """Find the next shorter tail of every state, shorter states first."""
        self._shorter = [START] * len(self.depth)
        for state in sorted(range(len(self.depth)), key=self.depth.__getitem__):
            if self.depth[state] < 2:
                continue
            above, byte = divmod(self._entered_by[state], 256)
            shorter = self._shorter[state] = self.after(self._shorter[above], byte)
            self.longest_found[state] = self.longest_found[state] or self.longest_found[shorter]


class Ending:
    """Feeds settled tokens one by one; holds back bytes that may begin a stop string or an incomplete character.

    End tokens and the stop string itself are not shown. A byte costs the same whatever was asked for.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_tokens: int, stop: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._stops = StopStrings(stop)
        self._max_held = max(MAX_UNFINISHED_BYTES, max((len(text.encode()) - 1 for text in stop), default=0))
        self.restart(())

    def restart(self, tokens: Sequence[int]) -> None:
        """Forget everything and stand after `tokens`, the beginning of an answer that has not ended in it.

        Only as many of the last ones are looked at as can be held back.
        """
        self.reason: FinishReason | None = None
        self._num_tokens = len(tokens)
        self._held = b""
        self._state = START
        num_last = self._max_held
        while len(tail := self._bytes_of(tokens[-num_last:])) < self._max_held and num_last < len(tokens):
            num_last *= 2  # special tokens print nothing
        for byte in tail[-self._max_held :]:
            self._state = self._stops.after(self._state, byte)
        self._held = tail[-self._max_held :]
        self._release(len(self._held) - self._num_held_back())

    def push(self, token: int) -> bytes:
        """Count one settled token; returns the bytes that may be shown now, `reason` tells whether it was the last."""
        self._num_tokens += 1
        if token in self._vocabulary.end_ids:
            return self._end(FinishReason.STOP, len(self._held))
        first = self._follow(self._vocabulary.token_bytes[token])
        if first is not None:
            shown = self._end(FinishReason.STOP, first)
            self._held = b""
            return shown
        if self._num_tokens >= self._max_tokens:
            return self._end(FinishReason.LENGTH, len(self._held))
        return self._release(len(self._held) - self._num_held_back())

    def _bytes_of(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self._vocabulary.token_bytes.__getitem__, tokens))

    def _follow(self, more: bytes) -> int | None:
        """Take the bytes of a token; returns where in the held ones the first stop string begins, None without."""
        stops, state, first = self._stops, self._state, None
        for end, byte in enumerate(more, len(self._held) + 1):
            state = stops.after(state, byte)
            length = stops.longest_found[state]
            if length and (first is None or end - length < first):
                first = end - length
        self._held += more
        self._state = state
        return first

    def _num_held_back(self) -> int:
        return max(self._stops.depth[self._state], _num_incomplete_bytes(self._held))

    def _end(self, reason: FinishReason, num_shown: int) -> bytes:
        self.reason = reason
        self._state = START
        return self._release(num_shown)

    def _release(self, num_bytes: int) -> bytes:
        shown, self._held = self._held[:num_bytes], self._held[num_bytes:]
        return shown


def _num_incomplete_bytes(text: bytes) -> int:
    """Length of a UTF-8 character that `text` ends in the middle of; 0 when complete or not UTF-8 at all."""
    for length in range(1, min(MAX_UNFINISHED_BYTES, len(text)) + 1):
        lead = text[-length]
        if lead < 0x80:
            return 0
        if lead >= 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return length if length < needed else 0
    return 0
