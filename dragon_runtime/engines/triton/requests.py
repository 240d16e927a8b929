"""REQUEST on Triton's wire: what every request to `causal_lm` wants, of which session, and with which commands."""

import enum
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import OurError
from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback
from dragon_runtime.engines.triton.tensors import Tensors, tensor_in

MAX_COMMAND_NUMBERS = 1 << 16


class Operation(enum.IntEnum):
    """What a request to `causal_lm` wants: the first number of its REQUEST. The second is the session's."""

    DESCRIBE = 0
    TOKENISE = 1
    OPEN = 2
    RUN = 3
    CLOSE = 4
    PROBE = 5


def request_tensor(operation: Operation, session: int = 0, numbers: Sequence[int] = ()) -> NDArray[np.int64]:
    """What every request begins with, and all of a `run`: each tensor costs a step its time."""
    return np.array([operation, session, *numbers], dtype=np.int64)


def operation_of(tensors: Tensors) -> tuple[Operation, int]:
    """What a request wants, and of which session.

    Raises:
        OurError: it has no REQUEST, or there is no such operation.
    """
    numbers = tensor_in(tensors, "REQUEST").reshape(-1)
    if len(numbers) < 2:
        raise OurError(f"REQUEST has {len(numbers)} elements; an operation and a session are wanted")
    operation, session = numbers[:2].tolist()
    if operation not in set(Operation):
        known = ", ".join(f"{each.value} {each.name.lower()}" for each in Operation)
        raise OurError(f"REQUEST asks for operation {operation}; there are {known}")
    return Operation(operation), session


_FEED, _FORK, _ROLLBACK, _DROP = range(4)


def command_numbers(commands: Sequence[Command]) -> list[int]:
    """Each command is its kind, two numbers, a count, and so many tokens."""
    numbers: list[int] = []
    for command in commands:
        match command:
            case Feed(ticket, branch, tokens):
                numbers += (_FEED, ticket, branch, len(tokens), *tokens)
            case Fork(source, branch):
                numbers += (_FORK, source, branch, 0)
            case Rollback(branch, position):
                numbers += (_ROLLBACK, branch, position, 0)
            case Drop(branch):
                numbers += (_DROP, branch, 0, 0)
    return numbers


def commands_of(tensors: Tensors) -> list[Command]:
    """The commands of a `run`.

    Raises:
        OurError: numbers that are no commands.
    """
    numbers = tensor_in(tensors, "REQUEST").reshape(-1)[2:].tolist()
    if len(numbers) > MAX_COMMAND_NUMBERS:
        raise OurError(f"REQUEST has {len(numbers)} numbers of commands; at most {MAX_COMMAND_NUMBERS} are accepted")
    return list(_commands(numbers))


def _commands(numbers: list[int]) -> Iterator[Command]:
    at = 0
    while at < len(numbers):
        if at + 4 > len(numbers) or not 0 <= numbers[at + 3] <= len(numbers) - at - 4:
            raise OurError(f"REQUEST ends within the command at {at}")
        kind, first, second, count = numbers[at : at + 4]
        tokens = tuple(numbers[at + 4 : at + 4 + count])
        if kind == _FEED:
            yield Feed(first, BranchId(second), tokens)
        elif kind == _FORK and not count:
            yield Fork(BranchId(first), BranchId(second))
        elif kind == _ROLLBACK and not count:
            yield Rollback(BranchId(first), second)
        elif kind == _DROP and not count:
            yield Drop(BranchId(first))
        else:
            raise OurError(f"REQUEST: {kind} with {count} tokens is no command (at {at})")
        at += 4 + count
