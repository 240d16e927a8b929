"""What the branches of an engine session will hold once every command has run: the half that needs no model.

It refuses commands that make no sense before they go anywhere, and knows which tickets still want an answer.
"""

from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback


class PlannedBranches:
    """The branches of one session. Lives on the event loop."""

    def __init__(self, *, max_branches: int, max_tokens: int, num_vocabulary: int) -> None:
        self._max_branches, self._max_tokens, self._num_vocabulary = max_branches, max_tokens, num_vocabulary
        self._lengths: dict[BranchId, int] = {BranchId(0): 0}
        self._tickets: dict[int, tuple[BranchId, int]] = {}

    def is_wanted(self, ticket: int) -> bool:
        """Whether a ticket is to be answered; asking ends that."""
        return self._tickets.pop(ticket, None) is not None

    def plan(self, command: Command) -> str | None:
        """Take a command; returns what is wrong with it, or None."""
        match command:
            case Feed(ticket, branch, tokens):
                return self._plan_feed(ticket, branch, tokens)
            case Fork(source, branch):
                if source not in self._lengths or branch in self._lengths:
                    return f"cannot fork branch {source} to {branch}: the first must exist, the second must not"
                if len(self._lengths) == self._max_branches:
                    return f"more than {self._max_branches} branches"
                self._lengths[branch] = self._lengths[source]
            case Rollback(branch, position):
                if branch not in self._lengths:
                    return f"there is no branch {branch}"
                if position < 0:
                    return f"a rollback to position {position}"
                self._lengths[branch] = min(self._lengths[branch], position)
                self._forget(branch, after=position)
            case Drop(branch):
                if branch not in self._lengths:
                    return f"there is no branch {branch}"
                del self._lengths[branch]
                self._forget(branch, after=-1)
        return None

    def _plan_feed(self, ticket: int, branch: BranchId, tokens: tuple[int, ...]) -> str | None:
        length = self._lengths.get(branch)
        if length is None:
            return f"there is no branch {branch}"
        if not tokens and length:
            return f"an empty feed to branch {branch}, which holds {length} tokens"
        if ticket < 0:
            return f"a ticket of {ticket}: they begin at 0"
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._num_vocabulary:
            return f"a token beyond the vocabulary of {self._num_vocabulary}"
        if length + len(tokens) > self._max_tokens:
            return f"an answer of more than {self._max_tokens} tokens"
        self._lengths[branch] = length + len(tokens)
        self._tickets[ticket] = (branch, length + len(tokens))
        return None

    def _forget(self, branch: BranchId, *, after: int) -> None:
        for ticket in [t for t, (at, end) in self._tickets.items() if at == branch and end > after]:
            del self._tickets[ticket]
