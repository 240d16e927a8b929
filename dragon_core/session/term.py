"""The term: a generation of the session's authority over targets. Only the opener begins one."""

from dataclasses import dataclass


@dataclass(slots=True)
class Term:
    """`position` is where the term began: what an older one fixed at or after it is void.

    `is_known`: the other end has spoken in it. Until then a further term begins where this one did.
    """

    number: int = 0
    position: int = 0
    is_known: bool = True

    def begin(self, position: int) -> None:
        """The opener takes the authority at `position`."""
        if self.is_known:
            self.position = position
        self.begin_anew()

    def begin_anew(self) -> None:
        """The opener asks for a replica again: only the one that takes the session is heard."""
        self.number += 1
        self.is_known = False

    def adopt(self, number: int) -> None:
        """The opener began this one."""
        self.number = number

    def hear(self) -> None:
        """The other end spoke in it."""
        self.is_known = True
