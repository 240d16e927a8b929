"""What may differ between two runs of the same answer, and must not matter to it."""

from dataclasses import dataclass, replace

from dragon_core.types import Peer


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Everything that may differ between two runs of the same answer. Pairs are (opener, other); times in seconds.

    `cuts` lose the frames of both directions, `silences` those of one sender; `lost` and `repeated` are single frames
    by their number on the link. The n-th replica vanishes at `deaths[n]`; opens go round `num_replicas` of them, and
    are refused until `full_until`, for `retry_after_seconds`. A step takes `fed_token_seconds` longer for each
    token that is fed besides the first.
    """

    delay_seconds: float = 0.05
    jitter_seconds: float = 0.0
    prefill_seconds: tuple[float, float] = (0.1, 0.1)
    decode_seconds: tuple[float, float] = (0.01, 0.012)
    fed_token_seconds: float = 0.0
    window: int = 8
    branches: int = 1
    placement: Peer | None = None
    moves: tuple[float, ...] = ()
    cuts: tuple[tuple[float, float], ...] = ()
    are_cuts_noticed: bool = False
    silences: tuple[tuple[Peer, float, float], ...] = ()
    lost: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()
    deaths: tuple[float, ...] = ()
    num_replicas: int = 1
    full_until: float = 0.0
    retry_after_seconds: float | None = 1.0
    are_stale_answers_given: bool = True

    @property
    def swapped(self) -> "Schedule":
        """The same with the two machines exchanged; the user stays with the opener."""
        return replace(
            self,
            prefill_seconds=self.prefill_seconds[::-1],
            decode_seconds=self.decode_seconds[::-1],
            placement=None if self.placement is None else self.placement.opposite,
        )
