"""Which method is best: halves of the questions, what was answered, the choice, and the rows of a report. Pure."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from dragon_core.types import WeightingRule
from evaluation.factbook import Prompt
from evaluation.methods.cloud_only import CLOUD_ONLY
from evaluation.methods.edge_only import EDGE_ONLY
from evaluation.methods.method import Method
from evaluation.methods.one_prompt import ONE_PROMPT
from evaluation.methods.two_sides import CANDIDATES, DEFAULTS
from evaluation.questions import Kind, Question
from evaluation.scoring import difference_interval, f1, is_correct, mean_interval, mean_rate, wilson

BASELINES = (EDGE_ONLY, CLOUD_ONLY, ONE_PROMPT)
"""What the candidates are compared with; never chosen."""
CENTRAL = "central (all documents on one machine, a context per side) writes the same tokens as the relevance rule"
"""It does not matter to the rule which side holds a context, so there is no such method here."""


class Half(enum.StrEnum):
    """Parameters and rule are chosen on one half and judged on the other."""

    DEVELOPMENT = "development"
    HELD_OUT = "held_out"


def half_of(question: Question) -> Half:
    """Even numbers are for development."""
    return Half.HELD_OUT if question.number % 2 else Half.DEVELOPMENT


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
    if method.parameters is not None:
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
