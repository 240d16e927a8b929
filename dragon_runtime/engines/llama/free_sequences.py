"""The sequences of an engine that no session holds."""

from collections import Counter
from collections.abc import Iterable

from dragon_core.errors import CapacityError


class FreeSequences:
    """Lives on the event loop."""

    def __init__(self, num_sequences: int) -> None:
        self._num_sequences = num_sequences
        self._free = list(range(num_sequences))
        self.num_holders = 0
        """Sessions that hold some."""

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, num_needed: int) -> list[int]:
        """Sequences for a session.

        Raises:
            CapacityError: fewer are free.
        """
        if num_needed > len(self._free):
            raise CapacityError(
                f"the answer needs {num_needed} sequences, {len(self._free)} of {self._num_sequences} are free: "
                "raise model.num_sequences, lower branches, or try again later",
                requested=num_needed,
                available=len(self._free),
            )
        self.num_holders += 1
        return [self._free.pop() for _ in range(num_needed)]

    def give_back(self, sequences: Iterable[int]) -> None:
        """All of a session's, which is over."""
        self.num_holders -= 1
        self._free.extend(sequences)

    @property
    def problem(self) -> str | None:
        """What is wrong while no session holds any: each must be here once."""
        if self.num_holders:
            return f"{self.num_holders} sessions hold sequences"
        here, expected = Counter(self._free), Counter(range(self._num_sequences))
        if here != expected:
            missing, surplus = sorted(expected - here), sorted((here - expected).elements())
            return f"of the free sequences {missing} are missing and {surplus} are too many"
        return None
