"""What is fixed of an answer so far, and who had how much to do with it."""

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dragon_core import limits
from dragon_core.messages import Target, TargetDetail, TopToken
from dragon_core.session.ending import Ending
from dragon_core.types import Peer, Settled, Step, TokenLogprob

SHARE_UNIT = 1 / 1000
LOGPROB_UNIT = 1 / 1024
DROPPED_UNIT = 1 / 65_535
MAX_REPEATED_TARGETS = 32
"""Messages with which one Resume is answered: 1024 tokens."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """Over all mixed positions up to one: what the report of any answer needs, without going through it again.

    `contexts` is our part in the tokens, per context of ours; None before any.
    """

    num_mixed: int = 0
    opener_share: int = 0
    dropped: int = 0
    most_dropped: int = 0
    contexts: NDArray[np.float64] | None = None

    def with_detail(self, detail: TargetDetail, parts: NDArray[np.float64] | None) -> "_Sums":
        contexts = self.contexts
        if parts is not None:
            contexts = parts if contexts is None else contexts + parts
        return _Sums(
            self.num_mixed + 1,
            self.opener_share + detail.opener_share,
            self.dropped + detail.dropped,
            max(self.most_dropped, detail.dropped),
            contexts,
        )


class Answer:
    """The settled path with its details. A detail is None where a token was settled early or is degraded."""

    def __init__(self, us: Peer, ending: Ending, settled: Sequence[int]) -> None:
        self._us = us
        self.ending = ending
        self.tokens: list[int] = []
        self.details: list[TargetDetail | None] = []
        self.degraded: set[int] = set()
        self._mixed: list[int] = []
        self._sums: list[_Sums] = []
        """Up to each mixed position, it included."""
        self._documents: Sequence[tuple[str, ...]] = ()
        self.follow(settled)

    @property
    def next_position(self) -> int:
        return len(self.tokens)

    @property
    def is_over(self) -> bool:
        return self.ending.reason is not None

    @property
    def _sums_so_far(self) -> _Sums:
        return self._sums[-1] if self._sums else _Sums()

    def fix(
        self,
        token: int,
        detail: TargetDetail | None,
        *,
        is_degraded: bool = False,
        parts: NDArray[np.float64] | None = None,
    ) -> bytes:
        """Append a token, with our contexts' `parts` in it; returns the bytes that may be shown."""
        if is_degraded:
            self.degraded.add(self.next_position)
        if detail is not None:
            self._sums.append(self._sums_so_far.with_detail(detail, parts))
            self._mixed.append(self.next_position)
        self.tokens.append(token)
        self.details.append(detail)
        return self.ending.push(token)

    def follow(self, tokens: Sequence[int]) -> None:
        """Append what an Open says was settled: it does not end the answer."""
        self.tokens.extend(tokens)
        self.details.extend([None] * len(tokens))
        self.ending.restart(self.tokens)

    def cut_to(self, position: int) -> int:
        """Drop every token at or after `position`; returns how many."""
        num_dropped = len(self.tokens) - position
        if num_dropped <= 0:
            return 0
        del self.tokens[position:], self.details[position:]
        self.degraded.difference_update(range(position, position + num_dropped))
        num_mixed = bisect.bisect_left(self._mixed, position)
        del self._mixed[num_mixed:], self._sums[num_mixed:]
        self.ending.restart(self.tokens)
        return num_dropped

    def targets_from(self, position: int) -> Iterator[Target]:
        """The messages that repeat what was fixed from `position` on. What they leave out is asked for again."""
        most = int(limits.TARGET_TOKENS.high)
        for start in range(position, min(len(self.tokens), position + MAX_REPEATED_TARGETS * most), most):
            end = start + most
            yield Target(start, tuple(self.tokens[start:end]), tuple(self.details[start:end]))

    def parts_of(
        self, step: Step, token: int, detail: TargetDetail, documents: Sequence[tuple[str, ...]]
    ) -> NDArray[np.float64] | None:
        """What the contexts with these documents had to do with a token; None where we did not publish it."""
        self._documents = documents
        share = detail.opener_share * SHARE_UNIT
        if self._us is Peer.OTHER:
            share = 1.0 - share
        columns = np.flatnonzero(step.published.distribution.ids == token)
        if len(columns) == 0:
            return None
        return share * step.context_shares[:, columns[0]].astype(np.float64)

    def document_shares(self) -> tuple[tuple[str, float], ...]:
        """Our documents with their mean share over the positions where both frames were present, largest first."""
        sums = self._sums_so_far
        if sums.contexts is None:
            return ()
        totals: dict[str, float] = defaultdict(float)
        for total, names in zip(sums.contexts.tolist(), self._documents, strict=False):
            for name in names:
                totals[name] += total / len(names)
        shares = ((name, min(1.0, total / sums.num_mixed)) for name, total in totals.items())
        return tuple(sorted(shares, key=lambda item: (-item[1], item[0])))

    @property
    def num_mixed(self) -> int:
        return self._sums_so_far.num_mixed

    def opener_share(self) -> float | None:
        """Mean share of the opener over mixed positions."""
        sums = self._sums_so_far
        return sums.opener_share * SHARE_UNIT / sums.num_mixed if sums.num_mixed else None

    def dropped_mass(self) -> tuple[float | None, float | None]:
        """Mean and largest bound of the mass that cutting took from p~, over mixed positions."""
        sums = self._sums_so_far
        if not sums.num_mixed:
            return None, None
        return sums.dropped * DROPPED_UNIT / sums.num_mixed, sums.most_dropped * DROPPED_UNIT


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


def without_distribution(target: Target) -> Target:
    """The same without what it says of the mixture: only the opener's shares, which the other's documents need."""
    details = tuple(None if each is None else TargetDetail(each.opener_share, 0, 0) for each in target.details)
    return Target(target.position, target.tokens, details)


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
