"""What the device knows: facts of one person's travels and home, made up from lists and arithmetic."""

from collections.abc import Iterator, Sequence

from evaluation.factbook import COUNTRIES
from evaluation.facts import MONTHS, Fact, date_wordings

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
            Fact(name=f"date of my appointment with the {person}", value=date, wordings=date_wordings(date))
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
