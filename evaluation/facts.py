"""A fact of the study: what is asked for, how a passage states it, and which answers are right."""

from dataclasses import dataclass

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is asked for by `name` and stated with `value`; a right answer has one of the wordings."""

    name: str
    value: str
    wordings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f"The {self.name} is {self.value}."


def date_wordings(date: str) -> tuple[str, ...]:
    """A date as `day month` and as `month day`."""
    day, month = date.split()
    return (date, f"{month} {day}")
