"""What we have once our engine is open: the frames we make, what we said of ourselves, and our documents."""

from dataclasses import dataclass

from dragon_core.couplings.coupling import Coupling
from dragon_core.messages import Ready
from dragon_core.session.contact import PeerReady
from dragon_core.session.drafting import Drafting


@dataclass(slots=True)
class Ours:
    """`documents` per context name those of its passages. `announced` is the Ready that we sent, None before."""

    drafting: Drafting
    ready: PeerReady
    documents: tuple[tuple[str, ...], ...]
    announced: Ready | None = None

    @property
    def coupling(self) -> Coupling:
        return self.drafting.coupling

    def announce(self, rtt_seconds: float | None) -> Ready:
        """Our Ready, now that we are bound."""
        self.announced = Ready(
            num_contexts=len(self.documents),
            constant_weight_level=self.ready.constant_weight_level,
            decode_seconds=self.ready.decode_seconds,
            rtt_seconds=rtt_seconds,
        )
        return self.announced
