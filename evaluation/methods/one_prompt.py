"""All passages of both sides in one prompt of one engine, most relevant first: what brings all documents together."""

from collections.abc import Sequence

from dragon_core.types import WeightingRule
from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import WeightingSettings
from evaluation.factbook import Prompt
from evaluation.methods.method import NUM_PASSAGES, Method


def _passages(prompt: Prompt) -> Sequence[Sequence[Passage]]:
    return (sorted((*prompt.edge, *prompt.cloud), key=lambda passage: -passage.relevance),)


ONE_PROMPT = Method(
    name="one prompt",
    weighting=WeightingSettings(rule=WeightingRule.EQUAL),
    passages=_passages,
    num_passages=2 * NUM_PASSAGES,
)
