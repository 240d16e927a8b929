"""Both sides write, each with its own passages, under a weighting rule: what DRAGON does."""

from collections.abc import Sequence
from itertools import groupby

from dragon_core.types import WeightingRule
from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import WeightingSettings
from evaluation.factbook import Prompt
from evaluation.methods.method import Method


def _passages(prompt: Prompt) -> Sequence[Sequence[Passage]]:
    return (prompt.edge, prompt.cloud)


def _rule(rule: WeightingRule, **parameters: float) -> Method:
    described = " ".join(f"{name}={value:g}" for name, value in parameters.items())
    return Method(
        name=f"{rule} {described}".strip(),
        weighting=WeightingSettings(rule=rule, **parameters),
        passages=_passages,
        parameters=parameters,
    )


CANDIDATES = (
    _rule(WeightingRule.EQUAL),
    *(_rule(WeightingRule.RELEVANCE, temperature=tau) for tau in (0.1, 0.05, 0.2)),
    *(_rule(WeightingRule.EVIDENCE, beta=beta) for beta in (0.5, 1.0, 2.0)),
    *(_rule(WeightingRule.CONTRAST, beta=beta, gamma=0.5) for beta in (0.25, 0.5)),
)
"""The simpler ones first, and of each rule the default first."""
DEFAULTS = tuple(next(group) for _, group in groupby(CANDIDATES, lambda method: method.weighting.rule))
