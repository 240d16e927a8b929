"""How a question is asked where the passages are known beforehand: by the study, and by the stopwatches of bench."""

from collections.abc import Sequence
from dataclasses import dataclass

from dragon_core.messages import ChatMessage, Open
from dragon_core.types import CouplingKind, Sampling, WeightingRule
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.answering.request import open_message
from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import PlacementChoice, ProtocolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one answer is written; `window` 1 is in step with the link."""

    rule: WeightingRule
    temperature: float
    coupling: CouplingKind = CouplingKind.SHARED_NOISE
    placement: PlacementChoice = PlacementChoice.AUTO
    window: int = 32
    branches: int = 1
    settles_early: bool = True
    seed: int = 1
    max_tokens: int = 48


class FixedPassages:
    """A retriever that is told what it finds."""

    def __init__(self) -> None:
        self.found: Sequence[Passage] = ()

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        del query
        return list(self.found[:num_passages])


def request_for(preparation: Preparation, question: str, settings: Settings) -> Open:
    """The request for an answer."""
    return open_message(
        ProtocolSettings(
            coupling=settings.coupling,
            window=settings.window,
            branches=settings.branches,
            placement=settings.placement,
        ),
        preparation.fingerprint,
        messages=(ChatMessage("user", question),),
        sampling=Sampling(temperature=settings.temperature),
        seed=settings.seed,
        max_tokens=settings.max_tokens,
        num_top_logprobs=None if settings.settles_early else 0,
    )
