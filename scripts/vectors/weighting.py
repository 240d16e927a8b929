"""weighting.json: logits per context to weights and the peer's distribution; passages to the relevance of a context."""

from collections.abc import Sequence

import numpy as np

from dragon_core import distribution, mixture, weighting
from dragon_core.sampling import log_softmax
from dragon_core.types import Sampling, Weighting, WeightingRule
from vectors.cases import Case

DEFAULT_SAMPLING = Sampling()
LOGITS = [[2.0, 1.0, 0.5, -1.0, -3.0, 0.0, 1.25], [-0.5, 3.0, 0.25, 2.5, -2.0, 1.0, 0.75]]
BARE_LOGITS = [1.0, 1.5, 0.5, 0.0, -0.75, 0.25, 0.125]


def weighting_case(
    name: str, rule: Weighting, sampling: Sampling = DEFAULT_SAMPLING, relevances: Sequence[float] = (0.62, 0.35)
) -> Case:
    logits, bare, relevance = np.array(LOGITS[: len(relevances)]), np.array(BARE_LOGITS), np.array(relevances)
    weights, _ = weighting.weigh(log_softmax(logits), log_softmax(bare), relevance, rule)
    weight, parts = mixture.mix_contexts(logits, bare, relevance, weighting=rule, sampling=sampling)
    return {
        "name": name,
        "rule": rule.rule,
        "tau": rule.temperature,
        "beta": rule.effective_beta,
        "gamma": rule.gamma,
        "sampling": {field: getattr(sampling, field) for field in ("temperature", "top_k", "min_p", "top_p")},
        "relevances": relevances,
        "logits": logits.tolist(),
        "bare_logits": BARE_LOGITS,
        "context_weights": weights.tolist(),
        "weight": weight,
        "weight_level": distribution.quantise_weight(weight),
        "probabilities": parts.sum(axis=0).tolist(),
    }


def build() -> Case:
    relevance, equal, evidence, contrast = (Weighting(rule=rule) for rule in WeightingRule)
    plain = Sampling(temperature=1.0)
    ignored = Sampling(temperature=0.0, top_k=1, min_p=0.9, top_p=0.1)
    filters = Sampling(temperature=1.3, top_k=5, min_p=0.05, top_p=0.9)
    own = Weighting(rule=WeightingRule.CONTRAST, beta=0.5, gamma=1.0)
    warm = Weighting(rule=WeightingRule.RELEVANCE, temperature=0.5)
    passages = [((0.5,), 0.1), ((0.62, 0.35), 0.1), ((0.3, 0.3, 0.3), 0.5)]
    return {
        "about": "cases: logits per context and of the prompt without passages to weights and the peer's distribution "
        "before the cut; contexts: relevances of passages to the relevance of their context",
        "cases": [
            *(weighting_case(f"{rule.rule} at temperature 1", rule, plain) for rule in (relevance, equal)),
            *(weighting_case(f"{rule.rule} at temperature 1", rule, plain) for rule in (evidence, contrast)),
            weighting_case("one context", relevance, relevances=(0.2,)),
            weighting_case("a negative weight and another tau", warm, plain, (-0.3,)),
            weighting_case("beta and gamma of its own", own, plain),
            weighting_case("contrast with a relevance below the least", contrast, relevances=(0.62, -0.1)),
            weighting_case("temperature 0 ignores the filters", evidence, ignored),
            weighting_case("top_k", equal, Sampling(top_k=3)),
            weighting_case("min_p", equal, Sampling(min_p=0.2)),
            weighting_case("top_p", equal, Sampling(temperature=1.5, top_p=0.8)),
            weighting_case("all filters", evidence, filters),
            weighting_case("filters after contrast", contrast, Sampling(temperature=0.9, top_k=2)),
        ],
        "contexts": [
            {"relevances": found, "tau": tau, "relevance": weighting.context_relevance(found, tau)}
            for found, tau in passages
        ],
    }
