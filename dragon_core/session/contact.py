"""The other end as we know it: whether we are bound to it, what it said of itself, and how we reach it."""

from dataclasses import dataclass, field

from dragon_core.link import LinkEstimate
from dragon_core.messages import Finish
from dragon_core.session.settings import Limits
from dragon_core.wire import Wire

MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class PeerReady:
    """What a Ready said, ours or theirs."""

    constant_weight_level: int | None
    decode_seconds: float


@dataclass(slots=True)
class Contact:
    """`ready` and `finish` are what the other end said, None before; `agreed_rtt` is what placement is computed with.

    `handover_sequence` numbers the envelope in which we gave the authority away last, -1 before any.
    """

    is_bound: bool
    link: LinkEstimate = field(default_factory=LinkEstimate)
    wire: Wire = field(init=False)
    ready: PeerReady | None = None
    finish: Finish | None = None
    agreed_rtt: float | None = None
    handover_sequence: int = -1
    num_opens: int = 0
    _num_retries: int = 0

    def __post_init__(self) -> None:
        self.wire = Wire(self.link)

    @property
    def rtt_seconds(self) -> float | None:
        return self.link.rtt_seconds

    @property
    def is_third_retry(self) -> bool:
        """Whether it is time to ask any replica, and not only the one we are bound to."""
        return self._num_retries % 3 == 0

    def bind(self) -> None:
        """A replica took the session."""
        self.is_bound = True

    def lose(self) -> None:
        """The replica is gone, or does not want us: what it sends is not read until another, or it, is bound."""
        self.is_bound = False

    def ask(self) -> None:
        """An Open is sent: whoever takes the session is the one to read."""
        self.is_bound = False
        self.num_opens += 1

    def next_delay(self, limits: Limits) -> float:
        """How long to wait before asking again: longer each time."""
        delay = min(limits.max_retry, limits.retry * 2.0 ** min(self._num_retries, MAX_DOUBLINGS))
        self._num_retries += 1
        return delay

    def stop_retrying(self) -> None:
        """The other end is there again."""
        self._num_retries = 0
