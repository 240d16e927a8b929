"""What all methods have: a name, a weighting, and who is given which passages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import WeightingSettings
from evaluation.factbook import Prompt

NUM_PASSAGES = 2
"""That each side finds for a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How an answer is written.

    `passages` are given to the engines that write it, one sequence each, the opener's first; `num_passages` of them go
    into one prompt. `parameters` are those of a weighting rule with both sides; a method that is none has None.
    """

    name: str
    weighting: WeightingSettings
    passages: Callable[[Prompt], Sequence[Sequence[Passage]]]
    num_passages: int = NUM_PASSAGES
    parameters: Mapping[str, float] | None = None
