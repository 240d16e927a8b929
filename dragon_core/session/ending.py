"""Where an answer ends and which bytes of it may be shown: a function of the settled tokens, alike at both ends."""

from collections.abc import Iterable

from dragon_core.messages import FinishReason
from dragon_core.types import Vocabulary


class Ending:
    """Feeds settled tokens one by one; holds back bytes that may begin a stop string or an incomplete character.

    End tokens and the stop string itself are not shown.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_tokens: int, stop: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._stop = tuple(text.encode() for text in stop)
        self.restart(())

    def restart(self, tokens: Iterable[int]) -> None:
        """Forget everything and feed `tokens` again: for an end whose targets were cut back."""
        self._num_tokens = 0
        self._held = b""
        self.reason: FinishReason | None = None
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> bytes:
        """Count one settled token; returns the bytes that may be shown now, `reason` tells whether it was the last."""
        self._num_tokens += 1
        if token in self._vocabulary.end_ids:
            self.reason = FinishReason.STOP
            return self._release(len(self._held))
        self._held += self._vocabulary.token_bytes[token]
        found = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if found:
            self.reason = FinishReason.STOP
            shown = self._release(min(found))
            self._held = b""
            return shown
        if self._num_tokens >= self._max_tokens:
            self.reason = FinishReason.LENGTH
            return self._release(len(self._held))
        return self._release(len(self._held) - max(self._num_stop_bytes(), _num_incomplete_bytes(self._held)))

    def _num_stop_bytes(self) -> int:
        """Length of the longest tail of the held bytes that begins a stop string."""
        longest = 0
        for text in self._stop:
            for length in range(min(len(text) - 1, len(self._held)), longest, -1):
                if self._held.endswith(text[:length]):
                    longest = length
                    break
        return longest

    def _release(self, num_bytes: int) -> bytes:
        shown, self._held = self._held[:num_bytes], self._held[num_bytes:]
        return shown


def _num_incomplete_bytes(text: bytes) -> int:
    """Length of a UTF-8 character that `text` ends in the middle of; 0 when complete or not UTF-8 at all."""
    for length in range(1, min(3, len(text)) + 1):
        lead = text[-length]
        if lead < 0x80:
            return 0
        if lead >= 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return length if length < needed else 0
    return 0
