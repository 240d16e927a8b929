"""What answers are worth: facts named, words shared, and how sure a rate is. Pure."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dragon_core.types import FloatArray
from evaluation.questions import Kind

Z_95 = 1.959964
"""Two-sided 95 % of the normal distribution."""
NUM_RESAMPLES = 4000
ARTICLES = ("a", "an", "the")


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
