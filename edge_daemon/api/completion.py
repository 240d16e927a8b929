"""The bodies of chat completions, streamed and whole, from the tokens of an answer. Pure: nothing is sent here."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_daemon.answers import AnswerSummary, AnswerToken

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, and the tokens it came from: several where bytes were held back."""

    text: str
    tokens: tuple[AnswerToken, ...]

    @property
    def edge_share(self) -> float | None:
        """Mean share of the edge, which is the opener, in the tokens settled from both frames."""
        shares = [token.opener_share for token in self.tokens if token.opener_share is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def is_degraded(self) -> bool:
        return any(token.is_degraded for token in self.tokens)


class Pieces:
    """Puts bytes of tokens together to whole characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[AnswerToken] = []

    def push(self, token: AnswerToken) -> Piece | None:
        """The text that became complete with this token, or None."""
        self._waiting.append(token)
        return self._piece(self._decoder.decode(token.text_bytes))

    def finish(self) -> Piece | None:
        """The rest: a replacement character for a character that never became complete."""
        return self._piece(self._decoder.decode(b"", final=True))

    def _piece(self, text: str) -> Piece | None:
        if not text:
            return None
        piece = Piece(text, tuple(self._waiting))
        self._waiting.clear()
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Fields that all bodies of one completion share."""

    completion_id: str
    created: int
    model: str
    has_logprobs: bool
    includes_usage: bool

    def first_chunk(self) -> Body:
        """The role comes before any text."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text_chunk(self, piece: Piece) -> Body:
        """One piece of text; `dragon` tells whose it is."""
        body = self._chunk({"content": piece.text}, logprobs=self._logprobs(piece.tokens))
        body["dragon"] = {"edge_share": piece.edge_share, "is_degraded": piece.is_degraded}
        return body

    def last_chunk(self, summary: AnswerSummary) -> Body:
        """The finish reason, and how the answer was written."""
        body = self._chunk({}, finish_reason=summary.finish_reason)
        body["dragon"] = summary.dragon.model_dump(mode="json")
        return body

    def usage_chunk(self, summary: AnswerSummary) -> Body:
        """Without choices, as `stream_options.include_usage` has it."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(summary)}

    def whole(self, pieces: Sequence[Piece], summary: AnswerSummary) -> Body:
        """The body of a completion that is not streamed."""
        tokens = [token for piece in pieces for token in piece.tokens]
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": summary.finish_reason,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(summary),
            "dragon": summary.dragon.model_dump(mode="json"),
        }

    def _head(self, kind: str) -> Body:
        return {"id": self.completion_id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, delta: Body, *, logprobs: Body | None = None, finish_reason: str | None = None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        body = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self.includes_usage:
            body["usage"] = None
        return body

    def _logprobs(self, tokens: Sequence[AnswerToken]) -> Body | None:
        """One entry per token that prints something; null where a token has none (it was not settled from both)."""
        if not self.has_logprobs:
            return None
        entries = []
        for token in tokens:
            if not token.token_bytes:
                continue
            top = [_entry(likely.token_bytes, likely.logprob) for likely in token.top]
            entries.append({**_entry(token.token_bytes, token.logprob), "top_logprobs": top})
        return {"content": entries, "refusal": None}


def _entry(token_bytes: bytes, logprob: float | None) -> Body:
    return {"token": token_bytes.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(token_bytes)}


def usage(summary: AnswerSummary) -> Body:
    """Tokens in and out; passages are not counted as the caller's prompt."""
    num_prompt, num_answer = summary.num_prompt_tokens, summary.dragon.num_tokens
    return {"prompt_tokens": num_prompt, "completion_tokens": num_answer, "total_tokens": num_prompt + num_answer}
