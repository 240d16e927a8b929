"""The methods that are compared, what their answers are worth, and which of them is best. Pure."""

import enum
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from bench.factbook import Prompt
from bench.questions import Kind, Question
from dragon_core.types import FloatArray, WeightingRule
from dragon_runtime.settings.groups import WeightingSettings

CENTRAL = "central (all documents on one machine, a context per side) writes the same tokens as the relevance rule"
"""It does not matter to the rule which side holds a context, so there is no such method here."""
Z_95 = 1.959964
"""Two-sided 95 % of the normal distribution."""
NUM_RESAMPLES = 4000
ARTICLES = ("a", "an", "the")


class Half(enum.StrEnum):
    """Parameters and rule are chosen on one half and judged on the other."""

    DEVELOPMENT = "development"
    HELD_OUT = "held_out"


def half_of(question: Question) -> Half:
    """Even numbers are for development."""
    return Half.HELD_OUT if question.number % 2 else Half.DEVELOPMENT


def names(text: str, wording: str) -> bool:
    """Whether a text has the wording as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(wording)}(?!\w)", text, re.IGNORECASE) is not None


def is_correct(text: str, facts: Sequence[Sequence[str]]) -> bool:
    """Whether every fact is named in one of its wordings; nothing else is judged."""
    return all(any(names(text, wording) for wording in wordings) for wordings in facts)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ARTICLES]


def f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it occurs, articles left out."""
    said, wanted = Counter(_words(text)), Counter(_words(reference))
    num_shared = (said & wanted).total()
    return 2 * num_shared / (said.total() + wanted.total()) if num_shared else 0.0


def wilson(num_correct: int, num_questions: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson's score interval)."""
    if not num_questions:
        return 0.0, 1.0
    rate, square = num_correct / num_questions, Z_95**2 / num_questions
    centre = (rate + square / 2) / (1 + square)
    reach = Z_95 / (1 + square) * math.sqrt(rate * (1 - rate) / num_questions + square / (4 * num_questions))
    return max(0.0, centre - reach), min(1.0, centre + reach)


ByKind = Mapping[Kind, Sequence[bool]]
"""Whether each question of a kind was answered."""


def mean_rate(correct: ByKind) -> float:
    """The criterion: mean over the kinds of the rate of correct answers, so that every kind counts the same."""
    return sum(sum(found) / len(found) for found in correct.values()) / len(correct)


def mean_interval(correct: ByKind) -> tuple[float, float]:
    """95 % interval of `mean_rate`: questions drawn again within each kind, with a fixed seed."""
    return _interval({kind: np.array(found, dtype=float) for kind, found in correct.items()})


def difference_interval(ours: ByKind, theirs: ByKind) -> tuple[float, float]:
    """95 % interval of how much better `ours` is by `mean_rate` on the same questions, which are drawn in pairs."""
    return _interval({kind: np.subtract(ours[kind], theirs[kind], dtype=float) for kind in ours})


def _interval(values: Mapping[Kind, FloatArray]) -> tuple[float, float]:
    chance = np.random.default_rng(1)
    means = np.zeros(NUM_RESAMPLES)
    for found in values.values():
        means += found[chance.integers(0, found.size, size=(NUM_RESAMPLES, found.size))].mean(axis=1)
    low, high = np.percentile(means / len(values), (2.5, 97.5))
    return float(low), float(high)


# -- methods -----------------------------------------------------------------------------------------------------


class Sides(enum.StrEnum):
    """Whose passages a method has, and in how many prompts."""

    TWO = "two"
    EDGE_ONLY = "edge_only"
    CLOUD_ONLY = "cloud_only"
    ONE_PROMPT = "one_prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How an answer is written; `parameters` are those its rule has."""

    name: str
    weighting: WeightingSettings
    sides: Sides = Sides.TWO
    parameters: Mapping[str, float] = field(default_factory=dict)


def _rule(rule: WeightingRule, **parameters: float) -> Method:
    described = " ".join(f"{name}={value:g}" for name, value in parameters.items())
    return Method(
        name=f"{rule} {described}".strip(),
        weighting=WeightingSettings(rule=rule, **parameters),
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
BASELINES = tuple(
    Method(name=sides.replace("_", " "), weighting=WeightingSettings(rule=WeightingRule.EQUAL), sides=sides)
    for sides in (Sides.EDGE_ONLY, Sides.CLOUD_ONLY, Sides.ONE_PROMPT)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question with what was found for it, and the text of every method asked so far."""

    question: Question
    prompt: Prompt
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def is_found(self) -> bool:
        """Whether the retrieved passages of both sides together name every fact."""
        found = " ".join(passage.text for passage in (*self.prompt.edge, *self.prompt.cloud))
        return is_correct(found, self.question.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the development half chose: the parameters of each rule, and the best of all methods."""

    of_rule: Mapping[WeightingRule, Method]
    method: Method

    @property
    def to_judge(self) -> list[Method]:
        """What the held-out half is asked with: the defaults, the chosen ones and the baselines."""
        chosen = [method for method in self.of_rule.values() if method not in DEFAULTS]
        return [*DEFAULTS, *chosen, *BASELINES]


def choose(development: Sequence[Answered], candidates: Sequence[Method] = CANDIDATES) -> Choice:
    """Take the best parameters of each rule, and the best of these; of equal ones the first, which is the simplest."""
    rates = {method.name: mean_rate(correct_by_kind(development, method)) for method in candidates}

    def best(methods: Iterable[Method]) -> Method:
        return max(methods, key=lambda method: round(rates[method.name], 9))  # the first of equal ones

    of_rule = {rule: best(group) for rule, group in groupby(candidates, lambda method: method.weighting.rule)}
    return Choice(of_rule=of_rule, method=best(of_rule.values()))


def correct_by_kind(answered: Sequence[Answered], method: Method) -> dict[Kind, list[bool]]:
    """Whether the method's answers are correct, in the order of the questions."""
    correct: dict[Kind, list[bool]] = {kind: [] for kind in Kind}
    for each in answered:
        correct[each.question.kind].append(is_correct(each.texts[method.name], each.question.facts))
    return correct


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All answers of each half, the methods it was asked with, and what the development half chose."""

    halves: Mapping[Half, Sequence[Answered]]
    methods: Mapping[Half, Sequence[Method]]
    choice: Choice


def rows(method: Method, half: Half, answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """One row per kind, and one for the mean over the kinds, whose counts are sums."""
    head: dict[str, Any] = {"method": method.name, "half": half}
    if method.sides is Sides.TWO:
        head |= {"rule": method.weighting.rule, "parameters": method.parameters}
    correct = correct_by_kind(answered, method)
    scores = {
        kind: [f1(each.texts[method.name], each.question.reference) for each in answered if each.question.kind is kind]
        for kind in Kind
    }
    means = {kind: float(np.mean(found)) for kind, found in scores.items()}
    found = [
        {
            **head,
            "kind": kind,
            "num_questions": len(marks),
            "num_correct": sum(marks),
            "rate": sum(marks) / len(marks),
            "interval": wilson(sum(marks), len(marks)),
            "f1": means[kind],
        }
        for kind, marks in correct.items()
    ]
    overall = {
        **head,
        "kind": "mean",
        "num_questions": sum(len(marks) for marks in correct.values()),
        "num_correct": sum(sum(marks) for marks in correct.values()),
        "rate": mean_rate(correct),
        "interval": mean_interval(correct),
        "f1": float(np.mean(list(means.values()))),
    }
    return [*found, overall]


def report(measured: Measured) -> dict[str, Any]:
    """All rows, what was chosen and how it did, and every answer."""
    found = [
        row
        for half, answered in measured.halves.items()
        for method in measured.methods[half]
        for row in rows(method, half, answered)
    ]
    return {
        "criterion": "mean over the kinds of questions of the rate of correct answers, on the development half",
        "rules": [row for row in found if "rule" in row],
        "baselines": [row for row in found if "rule" not in row],
        "chosen": _chosen(measured),
        "central": CENTRAL,
        "answers": [_answer(half, each) for half, answered in measured.halves.items() for each in answered],
    }


def _chosen(measured: Measured) -> dict[str, Any]:
    """The chosen method, how much better it is than the default of each rule, and the chosen parameters of all."""
    choice = measured.choice
    correct = {
        method.name: correct_by_kind(measured.halves[Half.HELD_OUT], method)
        for method in measured.methods[Half.HELD_OUT]
    }
    ours = correct[choice.method.name]
    return {
        "method": choice.method.name,
        "rule": choice.method.weighting.rule,
        "parameters": choice.method.parameters,
        "parameters_of_rule": {rule: method.parameters for rule, method in choice.of_rule.items()},
        "held_out_rate": mean_rate(ours),
        "held_out_interval": mean_interval(ours),
        "held_out_better_by": {
            name: {"difference": mean_rate(ours) - mean_rate(theirs), "interval": difference_interval(ours, theirs)}
            for name, theirs in correct.items()
            if name != choice.method.name
        },
    }


def _answer(half: Half, answered: Answered) -> dict[str, Any]:
    question = answered.question
    return {
        "half": half,
        "number": question.number,
        "kind": question.kind,
        "question": question.text,
        "reference": question.reference,
        "facts": question.facts,
        "is_found": answered.is_found,
        "relevances": {
            side: [round(passage.relevance, 3) for passage in passages]
            for side, passages in (("edge", answered.prompt.edge), ("cloud", answered.prompt.cloud))
        },
        "texts": answered.texts,
        "correct": [name for name, text in answered.texts.items() if is_correct(text, question.facts)],
    }
