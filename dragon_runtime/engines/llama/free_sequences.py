"""The sequences of an engine that no session holds."""

from collections.abc import Iterable

from dragon_core.errors import CapacityError


class FreeSequences:
    """Lives on the event loop."""

    def __init__(self, num_sequences: int) -> None:
        self._num_sequences = num_sequences
        self._free = list(range(num_sequences))

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
        return [self._free.pop() for _ in range(num_needed)]

    def give_back(self, sequences: Iterable[int]) -> None:
        """Those of a session that is over."""
        self._free.extend(sequences)
