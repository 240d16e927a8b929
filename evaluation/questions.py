"""Questions with exact answers for the study of the weighting rules, and the passages of both sides.

Nothing depends on chance. A question is put in the words of the sentence that answers it: it is for small models.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from evaluation.factbook import COUNTRIES
from evaluation.facts import Fact
from evaluation.private_facts import home_facts, private_passages, travel_facts
from evaluation.public_facts import PUBLIC_THEMES, public_fact, public_passages

NUM_PER_KIND = len(COUNTRIES)
ONE_FACT = "What is the {}?"
TWO_FACTS = "What is the {}, and what is the {}?"


class Kind(enum.StrEnum):
    """Whose facts a question needs."""

    EDGE = "edge"
    CLOUD = "cloud"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`number` counts within a kind from 0; a right answer has one wording of every fact."""

    number: int
    kind: Kind
    text: str
    reference: str
    facts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The questions, and the passages that each side holds."""

    questions: tuple[Question, ...]
    private: tuple[str, ...]
    public: tuple[str, ...]


def _ask(number: int, kind: Kind, *facts: Fact) -> Question:
    layout = ONE_FACT if len(facts) == 1 else TWO_FACTS
    return Question(
        number=number,
        kind=kind,
        text=layout.format(*(fact.name for fact in facts)),
        reference=" ".join(fact.sentence for fact in facts),
        facts=tuple(fact.wordings for fact in facts),
    )


def _public_fact_of(country: str, first_theme: int) -> Fact:
    """The fact of a theme, or of the next one that the factbook has for the country."""
    themes = (PUBLIC_THEMES[(first_theme + at) % len(PUBLIC_THEMES)] for at in range(len(PUBLIC_THEMES)))
    return next(fact for theme in themes if (fact := public_fact(country, theme)) is not None)


def _edge_questions(travels: Sequence[Fact], home: Sequence[Fact]) -> Iterator[Question]:
    """Half of them about travels, whose country the other side knows too, half about a home, in turn by pairs."""
    pairs = zip(range(0, len(home), 2), range(0, len(travels), 2), strict=False)
    facts = [fact for own, far in pairs for fact in (*travels[far : far + 2], *home[own : own + 2])]
    return (_ask(number, Kind.EDGE, fact) for number, fact in enumerate(facts))


def _cloud_questions() -> Iterator[Question]:
    """One per country, about something else than the question that needs both sides."""
    for number, country in enumerate(COUNTRIES):
        yield _ask(number, Kind.CLOUD, _public_fact_of(country, number // 2 + 2))


def _both_questions(travels: Sequence[tuple[str, Fact]]) -> Iterator[Question]:
    for number, (country, fact) in enumerate(travels):
        yield _ask(number, Kind.BOTH, fact, _public_fact_of(country, number // 2))


def make_study(num_per_kind: int = NUM_PER_KIND) -> Study:
    """The same study every time: the first questions of each kind. The passages do not depend on their number."""
    public = tuple(public_passages())
    travels, home = travel_facts(), home_facts(public)
    first, second = travels[: len(COUNTRIES)], travels[len(COUNTRIES) :]
    kinds = (_edge_questions([fact for _, fact in second], home), _cloud_questions(), _both_questions(first))
    return Study(
        questions=tuple(question for kind in kinds for question in islice(kind, num_per_kind)),
        private=tuple(private_passages(travels, home)),
        public=public,
    )
