"""Two ends with drivers of their own and a toy engine each: whole answers between them in virtual time."""

from collections.abc import Mapping

from dragon_core.messages import ChatMessage
from dragon_core.types import Peer
from dragon_runtime.interfaces import Passage
from tests.contracts.engine_pair import Asked, EnginePair, Way
from tests.fakes.engine import FlatEmbedder
from tests.fakes.toy_engine_async import ToyEngine

ASKED = Asked(
    messages=(ChatMessage("user", "Which gate?"),),
    found=(
        (
            Passage(document_id="a", text="The gate is 12.", relevance=0.6),
            Passage(document_id="b", text="Gates close early.", relevance=0.4),
        ),
        (Passage(document_id="p", text="Gate 12 is upstairs.", relevance=0.5),),
    ),
    max_tokens=30,
    seed=3,
)


class ToyPair(EnginePair):
    """Two ends with a toy engine each."""

    def __init__(
        self,
        asked: Asked = ASKED,
        way: Way | None = None,
        *,
        num_sequences: Mapping[Peer, int] | None = None,
        step_seconds: float = 0.01,
    ) -> None:
        self.num_sequences = dict.fromkeys(Peer, 16) | dict(num_sequences or {})
        self.engines = {
            peer: ToyEngine(num_sequences=number, step_seconds=step_seconds)
            for peer, number in self.num_sequences.items()
        }
        way = way or Way(rtt_seconds=0.1, branches=2)
        super().__init__(asked, way, self.engines, dict.fromkeys(Peer, FlatEmbedder()))

    def require_free(self) -> None:
        """Every sequence was given back."""
        assert {peer: engine.num_free_sequences for peer, engine in self.engines.items()} == self.num_sequences
