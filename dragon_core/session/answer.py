"""What is fixed of an answer so far, and who had how much to do with it."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from dragon_core.messages import Target, TargetDetail, TopToken
from dragon_core.session.ending import Ending
from dragon_core.types import Peer, Settled, Step, TokenLogprob

SHARE_UNIT = 1 / 1000
LOGPROB_UNIT = 1 / 1024
DROPPED_UNIT = 1 / 65_535


class Answer:
    """The settled path with its details. A detail is None where a token was settled early or is degraded."""

    def __init__(self, us: Peer, ending: Ending, settled: Sequence[int]) -> None:
        self._us = us
        self.ending = ending
        self.tokens: list[int] = []
        self.details: list[TargetDetail | None] = []
        self.degraded: set[int] = set()
        self._attributed: dict[int, list[tuple[str, float]]] = {}
        for token in settled:
            self.fix(token, None)

    @property
    def next_position(self) -> int:
        return len(self.tokens)

    @property
    def is_over(self) -> bool:
        return self.ending.reason is not None

    def fix(self, token: int, detail: TargetDetail | None, *, is_degraded: bool = False) -> bytes:
        """Append a token; returns the bytes that may be shown."""
        if is_degraded:
            self.degraded.add(self.next_position)
        self.tokens.append(token)
        self.details.append(detail)
        return self.ending.push(token)

    def cut_to(self, position: int) -> int:
        """Drop every token at or after `position`; returns how many."""
        num_dropped = len(self.tokens) - position
        if num_dropped <= 0:
            return 0
        del self.tokens[position:], self.details[position:]
        self.degraded = {at for at in self.degraded if at < position}
        self._attributed = {at: parts for at, parts in self._attributed.items() if at < position}
        self.ending.restart(self.tokens)
        return num_dropped

    def target_from(self, position: int) -> Target:
        """The message that repeats everything fixed from `position` on."""
        return Target(position, tuple(self.tokens[position:]), tuple(self.details[position:]))

    def attribute(self, step: Step, token: int, detail: TargetDetail, documents: Sequence[tuple[str, ...]]) -> None:
        """Give our share in the next token to the documents of the contexts it came from, before it is fixed."""
        share = detail.opener_share * SHARE_UNIT
        if self._us is Peer.OTHER:
            share = 1.0 - share
        columns = np.flatnonzero(step.published.distribution.ids == token)
        if len(columns) == 0:
            return
        self._attributed[self.next_position] = [
            (name, share * float(context_share) / len(names))
            for context_share, names in zip(step.context_shares[:, columns[0]], documents, strict=False)
            for name in names
        ]

    def document_shares(self) -> tuple[tuple[str, float], ...]:
        """Our documents with their mean share over the positions where both frames were present, largest first."""
        totals: dict[str, float] = defaultdict(float)
        for name, share in itertools.chain.from_iterable(self._attributed.values()):
            totals[name] += share
        shares = ((name, min(1.0, total / max(1, self.num_mixed))) for name, total in totals.items())
        return tuple(sorted(shares, key=lambda item: (-item[1], item[0])))

    @property
    def num_mixed(self) -> int:
        return sum(detail is not None for detail in self.details)

    def opener_share(self) -> float | None:
        """Mean share of the opener over mixed positions."""
        shares = [detail.opener_share for detail in self.details if detail is not None]
        return sum(shares) * SHARE_UNIT / len(shares) if shares else None

    def dropped_mass(self) -> tuple[float | None, float | None]:
        """Mean and largest bound of the mass that cutting took from p~, over mixed positions."""
        dropped = [detail.dropped for detail in self.details if detail is not None]
        if not dropped:
            return None, None
        return sum(dropped) * DROPPED_UNIT / len(dropped), max(dropped) * DROPPED_UNIT


def detail_of(settled: Settled, dropped_bound: float) -> TargetDetail | None:
    """The wire form of how a token was settled."""
    if settled.opener_share is None or settled.logprob is None:
        return None
    return TargetDetail(
        round(settled.opener_share / SHARE_UNIT),
        max(0, round(-settled.logprob / LOGPROB_UNIT)),
        min(65_535, int(np.ceil(dropped_bound / DROPPED_UNIT))),
        tuple(TopToken(top.token, top.logprob) for top in settled.top),
    )


def settled_of(token: int, detail: TargetDetail | None) -> Settled:
    """How a token was settled, as far as its wire form tells."""
    if detail is None:
        return Settled(token=token)
    return Settled(
        token=token,
        opener_share=detail.opener_share * SHARE_UNIT,
        logprob=-detail.logprob_level * LOGPROB_UNIT,
        top=tuple(TokenLogprob(token=top.token, logprob=top.logprob) for top in detail.top),
    )
